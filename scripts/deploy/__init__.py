"""A packed bundle as a MONAI Deploy application: DICOM in, segmentations and structured reports out."""

"""A packed bundle as a MONAI Deploy application, from a DICOM study to segmentations and structured reports."""

"""The layouts with annotation files, one of each image or a few of all images."""

from fbnetv5.data.cvat import CVAT
from fbnetv5.data.label_studio import LABEL_STUDIO
from fbnetv5.data.metadata_folder import METADATA_FOLDER
from fbnetv5.data.voc import VOC
from fbnetv5.data.webdataset import WEBDATASET
from fbnetv5.data.yolo import YOLO

ANNOTATION_LAYOUTS = (VOC, YOLO, METADATA_FOLDER, CVAT, LABEL_STUDIO, WEBDATASET)

"""Labels images with pretrained networks, so that one data set has the labels of every task of a search."""

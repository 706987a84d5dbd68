"""Printed circuit boards, clean or with one of six kinds of defects: a small fully convolutional network on scans."""

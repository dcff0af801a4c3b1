"""The conformance kit: the laws every plugin keeps, usable from pytest and `vxl plugin check`."""

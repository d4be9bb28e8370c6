# libtorch: a release archive or the Python wheel; each has TorchConfig.cmake.
#   -DTorch_DIR=  its folder; for the wheel `<site-packages>/torch/share/cmake/Torch`
find_package(Torch REQUIRED)
add_library(infc_sdk INTERFACE IMPORTED)
target_link_libraries(infc_sdk INTERFACE ${TORCH_LIBRARIES})

# OpenVINO: a release archive, a system package or the Python wheel; each has OpenVINOConfig.cmake.
#   -DOpenVINO_DIR=  its folder; for the wheel `<site-packages>/openvino/cmake`
find_package(OpenVINO REQUIRED COMPONENTS Runtime)
add_library(infc_sdk INTERFACE IMPORTED)
target_link_libraries(infc_sdk INTERFACE openvino::runtime)

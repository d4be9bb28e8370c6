# ONNX Runtime: the C headers, and the shared library of a release or of the Python wheel.
#   -DONNXRUNTIME_INCLUDE_DIR=  the folder of onnxruntime_c_api.h
#   -DONNXRUNTIME_LIBRARY=      libonnxruntime.so
find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h
          PATH_SUFFIXES onnxruntime onnxruntime/core/session
          DOC "folder of onnxruntime_c_api.h")
find_library(ONNXRUNTIME_LIBRARY onnxruntime DOC "libonnxruntime.so")
if(NOT ONNXRUNTIME_INCLUDE_DIR OR NOT ONNXRUNTIME_LIBRARY)
  message(FATAL_ERROR "ONNX Runtime was not found: set ONNXRUNTIME_INCLUDE_DIR to the folder of "
                      "onnxruntime_c_api.h and ONNXRUNTIME_LIBRARY to libonnxruntime.so")
endif()

# The adaptor opens libonnxruntime.so.1 when a model is loaded. It is not linked, because its symbols
# carry its exact version, and a loader that was linked with one release would refuse all others.
# The wheel holds the library under its full version only.
get_filename_component(sdk_folder "${ONNXRUNTIME_LIBRARY}" DIRECTORY)
if(NOT EXISTS "${sdk_folder}/libonnxruntime.so.1")
  set(sdk_folder "${CMAKE_CURRENT_BINARY_DIR}/sdk")
  file(MAKE_DIRECTORY "${sdk_folder}")
  file(CREATE_LINK "${ONNXRUNTIME_LIBRARY}" "${sdk_folder}/libonnxruntime.so.1" SYMBOLIC)
endif()

add_library(infc_sdk INTERFACE IMPORTED)
target_include_directories(infc_sdk SYSTEM INTERFACE "${ONNXRUNTIME_INCLUDE_DIR}")
target_link_options(infc_sdk INTERFACE "LINKER:-rpath,${sdk_folder}")
target_link_libraries(infc_sdk INTERFACE ${CMAKE_DL_LIBS})
if(INFC_SANITIZE)
  # AddressSanitizer's dlopen does not see the loader's run path: have the library there before.
  target_link_libraries(infc_sdk INTERFACE "$<LINK_ONLY:${sdk_folder}/libonnxruntime.so.1>")
  target_link_options(infc_sdk INTERFACE "LINKER:--no-as-needed")
endif()

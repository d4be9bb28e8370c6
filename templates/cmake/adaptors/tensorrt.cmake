# TensorRT, or TensorRT for RTX: the headers of the vendor's archive, of libnvinfer-headers-dev, or of
# https://github.com/NVIDIA/TensorRT at the library's version; and those of CUDA.
#   -DTENSORRT_INCLUDE_DIR=  the folder of NvInfer.h
#   -DCUDA_INCLUDE_DIR=      the folder of cuda_runtime_api.h and cuda.h
#   -DTENSORRT_LIBRARY=      libnvinfer.so.11, libnvinfer_lean.so.11 or libtensorrt_rtx.so.1; where it
#                            is not given, the one that fits the headers is looked for when a model
#                            is loaded
find_path(TENSORRT_INCLUDE_DIR NvInfer.h
          HINTS "$ENV{TENSORRT_ROOT}" "$ENV{TENSORRT_ROOT}/include" DOC "folder of NvInfer.h")
find_path(CUDA_INCLUDE_DIR cuda_runtime_api.h
          HINTS "$ENV{CUDA_HOME}/include" /usr/local/cuda/include DOC "folder of cuda.h")
set(TENSORRT_LIBRARY "" CACHE FILEPATH "TensorRT's library")
if(NOT TENSORRT_INCLUDE_DIR)
  message(FATAL_ERROR "TensorRT was not found: set TENSORRT_INCLUDE_DIR to the folder of NvInfer.h")
endif()
if(NOT CUDA_INCLUDE_DIR OR NOT EXISTS "${CUDA_INCLUDE_DIR}/cuda.h")
  message(FATAL_ERROR "CUDA was not found: set CUDA_INCLUDE_DIR to the folder of "
                      "cuda_runtime_api.h and cuda.h")
endif()

# Neither library is linked: the adaptor opens TensorRT's, and the driver's, when a model is loaded, so
# that a program starts where they are missing and says what is.
add_library(infc_sdk INTERFACE IMPORTED)
target_include_directories(infc_sdk SYSTEM INTERFACE "${TENSORRT_INCLUDE_DIR}" "${CUDA_INCLUDE_DIR}")
target_link_libraries(infc_sdk INTERFACE ${CMAKE_DL_LIBS})
if(TENSORRT_LIBRARY)
  get_filename_component(sdk_name "${TENSORRT_LIBRARY}" NAME)
  get_filename_component(sdk_folder "${TENSORRT_LIBRARY}" DIRECTORY)
  target_compile_definitions(infc_sdk INTERFACE "INFC_TENSORRT_LIBRARY=\"${sdk_name}\"")
  target_link_options(infc_sdk INTERFACE "LINKER:-rpath,${sdk_folder}")
  if(INFC_SANITIZE)
    # AddressSanitizer's dlopen does not see the loader's run path: have the library there before.
    target_link_libraries(infc_sdk INTERFACE "$<LINK_ONLY:${TENSORRT_LIBRARY}>")
    target_link_options(infc_sdk INTERFACE "LINKER:--no-as-needed")
  endif()
endif()

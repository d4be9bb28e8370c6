# TVM's runtime for its virtual machine, of the Python wheels or of a folder that has the same files.
#   -DTVM_FFI_INCLUDE_DIR=     the folder of tvm/ffi/c_api.h
#   -DTVM_DLPACK_INCLUDE_DIR=  the folder of dlpack/dlpack.h
#   -DTVM_FFI_LIBRARY=         libtvm_ffi.so
#   -DTVM_RUNTIME_LIBRARY=     libtvm_runtime.so
find_path(TVM_FFI_INCLUDE_DIR tvm/ffi/c_api.h DOC "folder of tvm/ffi/c_api.h")
find_path(TVM_DLPACK_INCLUDE_DIR dlpack/dlpack.h DOC "folder of dlpack/dlpack.h")
find_library(TVM_FFI_LIBRARY tvm_ffi DOC "libtvm_ffi.so")
find_library(TVM_RUNTIME_LIBRARY tvm_runtime DOC "libtvm_runtime.so")
foreach(entry TVM_FFI_INCLUDE_DIR TVM_DLPACK_INCLUDE_DIR TVM_FFI_LIBRARY TVM_RUNTIME_LIBRARY)
  if(NOT ${entry})
    message(FATAL_ERROR "TVM's runtime was not found: set ${entry}")
  endif()
endforeach()

get_filename_component(tvm_ffi_folder "${TVM_FFI_LIBRARY}" DIRECTORY)
get_filename_component(tvm_runtime_folder "${TVM_RUNTIME_LIBRARY}" DIRECTORY)
find_package(Threads REQUIRED)
add_library(infc_sdk INTERFACE IMPORTED)
target_include_directories(infc_sdk SYSTEM INTERFACE
  "${TVM_FFI_INCLUDE_DIR}" "${TVM_DLPACK_INCLUDE_DIR}")
# No symbol of libtvm_runtime is named: what it registers when it is loaded is what is needed.
target_link_libraries(infc_sdk INTERFACE
  -Wl,--no-as-needed "${TVM_RUNTIME_LIBRARY}" "${TVM_FFI_LIBRARY}" -Wl,--as-needed
  Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(infc_sdk INTERFACE
  "LINKER:-rpath,${tvm_runtime_folder}" "LINKER:-rpath,${tvm_ffi_folder}")

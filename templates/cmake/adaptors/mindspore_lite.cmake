# MindSpore Lite: a release archive, or the Python wheel, which has the same headers and a runtime.
#   -DMINDSPORE_LITE_ROOT=  the folder of the unpacked archive (default: MSLITE_HOME of the
#                           environment); for the wheel `<site-packages>/mindspore_lite`
set(MINDSPORE_LITE_ROOT "$ENV{MSLITE_HOME}" CACHE PATH "MindSpore Lite's archive or wheel")

set(sdk "${MINDSPORE_LITE_ROOT}")
if(EXISTS "${sdk}/runtime/lib/libmindspore-lite.so")
  set(sdk "${sdk}/runtime")
  set(sdk_runtime "${sdk}/lib/libmindspore-lite.so")
  set(sdk_others lib/libmindspore_core.so third_party/glog/libmindspore_glog.so*)
elseif(EXISTS "${sdk}/lib/libmindspore_converter.so")
  # The wheel has its runtime in the converter's library.
  set(sdk_runtime "${sdk}/lib/libmindspore_converter.so")
  set(sdk_others lib/libmindspore_core.so lib/libmindspore_glog.so* lib/libmslite_converter_plugin.so
                 lib/libopencv_*.so*)
else()
  message(FATAL_ERROR "MindSpore Lite was not found: set MINDSPORE_LITE_ROOT to the folder that has "
                      "runtime/lib/libmindspore-lite.so (an archive) or "
                      "lib/libmindspore_converter.so (the wheel)")
endif()
if(NOT EXISTS "${sdk}/include/api/model.h")
  message(FATAL_ERROR "MindSpore Lite has no headers in ${sdk}/include")
endif()
list(TRANSFORM sdk_others PREPEND "${sdk}/")
file(GLOB sdk_others ${sdk_others})

add_library(infc_sdk INTERFACE IMPORTED)
target_include_directories(infc_sdk SYSTEM INTERFACE "${sdk}" "${sdk}/include")
# The runtime needs the others and has no run path. The loader needs them itself, so that its run
# path finds them, here and where a program is linked with it.
target_link_options(infc_sdk INTERFACE "LINKER:--no-as-needed")
target_link_libraries(infc_sdk INTERFACE "${sdk_runtime}" ${sdk_others} ${CMAKE_DL_LIBS})

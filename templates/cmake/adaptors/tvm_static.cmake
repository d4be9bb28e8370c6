# The model is linked in: lib<model>.a of the bundle, or of INFC_MODEL_FOLDER.
set(INFC_MODEL_FOLDER "${CMAKE_CURRENT_LIST_DIR}/../../model" CACHE PATH
  "folder of the model's static library")
file(GLOB infc_model_archive "${INFC_MODEL_FOLDER}/libinfc_*.a")
list(LENGTH infc_model_archive infc_model_count)
if(NOT infc_model_count EQUAL 1)
  message(FATAL_ERROR "there is no static library of one model in ${INFC_MODEL_FOLDER}")
endif()
get_filename_component(infc_model_name "${infc_model_archive}" NAME_WE)
string(REGEX REPLACE "^lib" "" infc_model_name "${infc_model_name}")

# Its functions have its name; the adaptor, which is the same for all models, calls these.
set(infc_names "${CMAKE_CURRENT_BINARY_DIR}/infc_names.cpp")
set(infc_text "#include <cstddef>\n#include <cstdint>\n\nstruct infc_model;\n")
macro(infc_forward result name parameters arguments)
  string(APPEND infc_text
    "\nextern \"C\" ${result} ${infc_model_name}_${name}(${parameters});\n"
    "extern \"C\" ${result} infc_model_${name}(${parameters});\n"
    "${result} infc_model_${name}(${parameters}) { return ${infc_model_name}_${name}(${arguments}); }\n")
endmacro()
infc_forward("int" abi "" "")
infc_forward("std::size_t" bytes "" "")
infc_forward("int" tensor "int output, int index, std::int64_t* shape, int* type"
  "output, index, shape, type")
infc_forward("int" create "int threads, infc_model** made" "threads, made")
infc_forward("int" place "void* memory, std::size_t bytes, infc_model** made" "memory, bytes, made")
infc_forward("int" run "infc_model* model, const void* const* inputs, void* const* outputs"
  "model, inputs, outputs")
infc_forward("const char*" message "const infc_model* model" "model")
infc_forward("void" destroy "infc_model* model" "model")
file(WRITE "${infc_names}" "${infc_text}")
add_library(infc_names OBJECT "${infc_names}")

find_package(Threads REQUIRED)
add_library(infc_sdk INTERFACE IMPORTED)
add_dependencies(infc_sdk infc_names)
target_link_libraries(infc_sdk INTERFACE
  $<TARGET_OBJECTS:infc_names> "${infc_model_archive}" Threads::Threads m)

# The model's own library is all there is; it is opened when the model is loaded.
add_library(infc_sdk INTERFACE IMPORTED)
target_link_libraries(infc_sdk INTERFACE ${CMAKE_DL_LIBS})

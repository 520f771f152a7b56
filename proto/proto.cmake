# proto/*.proto are compiled by protoc-c into build/generated/proto/; the generated code is not held to our warnings.
file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.proto)
set(generated)
foreach(proto ${protos})
    get_filename_component(stem ${proto} NAME_WE)
    set(base ${CMAKE_BINARY_DIR}/generated/proto/${stem}.pb-c)
    add_custom_command(OUTPUT ${base}.c ${base}.h
        COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/generated
        COMMAND ${PROTOC_C} --c_out=${CMAKE_BINARY_DIR}/generated -I ${CMAKE_SOURCE_DIR} ${proto}
        DEPENDS ${proto})
    set_source_files_properties(${base}.c PROPERTIES COMPILE_OPTIONS "-w")
    list(APPEND generated ${base}.c)
endforeach()
file(GLOB proto_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.c)
if(proto_sources OR generated)
    add_library(bt_proto STATIC ${proto_sources} ${generated})
    target_link_libraries(bt_proto PUBLIC bt_common_base PkgConfig::PROTOBUF_C)
else()
    add_library(bt_proto INTERFACE)
    target_link_libraries(bt_proto INTERFACE bt_common_base PkgConfig::PROTOBUF_C)
endif()

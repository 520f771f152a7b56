# FindUCX - which UCX the programs are built with, as the target UCX::ucp, and whether it knows GPUs, as UCX_HAS_CUDA.
#
#   -DUCX_ROOT=FOLDER       this one, whatever it can do
#   BATON_CUDA=ON           .ucx in the source tree (ops/setup --cuda), else the system's if its modules know cuda_ipc, else
#                           the system's with a warning: kernels can be built, KV cannot go between GPUs
#   otherwise               the system's, by pkg-config
#
# UCX releases do not mix: daemons that pair are built with the same one. A UCX in a folder is found by the programs of the
# build tree by their rpath; `cmake --install` puts its libraries into lib/baton.
set(UCX_ROOT "" CACHE PATH "UCX to build with; empty: .ucx for builds with CUDA, else the system's")

set(ucx_root "${UCX_ROOT}")
if(NOT ucx_root AND BATON_CUDA AND EXISTS ${CMAKE_SOURCE_DIR}/.ucx/lib/libucp.so)
    set(ucx_root ${CMAKE_SOURCE_DIR}/.ucx)
endif()
set(UCX_HAS_CUDA FALSE)
if(ucx_root)
    get_filename_component(ucx_root ${ucx_root} ABSOLUTE BASE_DIR ${CMAKE_SOURCE_DIR})
    foreach(library ucp ucs)
        find_library(ucx_${library} ${library} PATHS ${ucx_root}/lib NO_DEFAULT_PATH NO_CACHE)
        if(NOT ucx_${library} OR NOT EXISTS ${ucx_root}/include/ucp/api/ucp.h)
            message(FATAL_ERROR "there is no UCX in ${ucx_root}")
        endif()
    endforeach()
    add_library(UCX::ucp INTERFACE IMPORTED)
    set_target_properties(UCX::ucp PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES ${ucx_root}/include
        INTERFACE_LINK_LIBRARIES "${ucx_ucp};${ucx_ucs}")
    # What ucp.so needs besides is found where it lies.
    target_link_options(UCX::ucp INTERFACE LINKER:-rpath-link,${ucx_root}/lib)
    file(STRINGS ${ucx_root}/include/ucp/api/ucp_version.h ucx_version REGEX "define UCP_API_(MAJOR|MINOR)")
    string(REGEX REPLACE "[^0-9]+" "." ucx_version "${ucx_version}")
    string(REGEX REPLACE "^\\.|\\.$" "" UCX_VERSION "${ucx_version}")
    set(ucx_modules ${ucx_root}/lib/ucx)
    set(ucx_from ${ucx_root})
    install(DIRECTORY ${ucx_root}/lib/ DESTINATION lib/baton FILES_MATCHING PATTERN "*.so.*" PATTERN "cmake" EXCLUDE PATTERN "pkgconfig" EXCLUDE)
    list(APPEND CMAKE_INSTALL_RPATH "$ORIGIN/../lib/baton")
else()
    pkg_check_modules(UCX REQUIRED IMPORTED_TARGET ucx)
    add_library(UCX::ucp ALIAS PkgConfig::UCX)
    set(ucx_modules ${UCX_LIBDIR}/ucx)
    set(ucx_from "the system")
endif()
file(GLOB ucx_cuda_module ${ucx_modules}/libuct_cuda.so*)
if(ucx_cuda_module)
    set(UCX_HAS_CUDA TRUE)
endif()
if(BATON_CUDA AND NOT UCX_HAS_CUDA)
    message(WARNING "UCX of ${ucx_from} knows no GPUs: KV will not go between GPUs. ops/setup --cuda installs one that does, "
                    "-DUCX_ROOT=FOLDER names one")
endif()
message(STATUS "UCX ${UCX_VERSION} of ${ucx_from}")

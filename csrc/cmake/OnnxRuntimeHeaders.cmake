# Finds the official ONNX Runtime C/C++ headers and defines the interface target dgrt_ort_headers.
# The onnxruntime wheel ships the library but no headers, so they come from (first hit wins):
#   1. DGRT_ORT_INCLUDE (cache or environment variable): the folder that holds onnxruntime_c_api.h
#   2. a system installation
#   3. the cache folder ($DGRT_CACHE_DIR or ~/.cache/dgrt), filled once from the npm package
#      com.github.asus4.onnxruntime, whose iOS framework carries the complete official headers.
# Only headers are used at build time; the library is opened at run time (csrc/engine/ort_library.cc).

set(_dgrt_ort_package "com.github.asus4.onnxruntime")
set(_dgrt_ort_package_version "0.4.9")  # ONNX Runtime API 29
set(_dgrt_ort_sha256 "e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d")
set(_dgrt_ort_header_folder
    "package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers")
set(_dgrt_ort_min_api 23)  # the oldest headers whose C++ wrapper has everything ort_engine.cc calls

# Downloads into a temporary folder beside `target` and renames it, so that two builds at once or an interrupted one
# never leave half a folder.
function(_dgrt_fetch_ort_headers target)
  find_program(DGRT_NPM npm)
  mark_as_advanced(DGRT_NPM)
  if(NOT DGRT_NPM)
    message(FATAL_ERROR
      "ONNX Runtime headers not found and npm is not installed to fetch them. Provide them in one of three ways:\n"
      "  1. set DGRT_ORT_INCLUDE to a folder with onnxruntime_c_api.h and onnxruntime_cxx_api.h\n"
      "     (for example from an ONNX Runtime release archive: include/);\n"
      "  2. install the system package with the headers (Debian: libonnxruntime-dev);\n"
      "  3. install npm; the build then fetches ${_dgrt_ort_package}@${_dgrt_ort_package_version} once (150 MB).")
  endif()
  get_filename_component(parent "${target}" DIRECTORY)
  string(RANDOM LENGTH 8 suffix)
  set(work "${parent}/.ort-headers-${suffix}")
  file(MAKE_DIRECTORY "${work}")
  message(STATUS "dgrt: fetching ONNX Runtime headers with npm (once, 150 MB)")
  execute_process(
    COMMAND "${DGRT_NPM}" pack --silent "${_dgrt_ort_package}@${_dgrt_ort_package_version}"
    WORKING_DIRECTORY "${work}" RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE npm_error)
  set(archive "${work}/${_dgrt_ort_package}-${_dgrt_ort_package_version}.tgz")
  if(failed OR NOT EXISTS "${archive}")
    file(REMOVE_RECURSE "${work}")
    message(FATAL_ERROR
      "npm pack ${_dgrt_ort_package}@${_dgrt_ort_package_version} failed: ${npm_error}\n"
      "Set DGRT_ORT_INCLUDE to a folder with the ONNX Runtime headers instead.")
  endif()
  file(SHA256 "${archive}" found)
  if(NOT found STREQUAL _dgrt_ort_sha256)
    file(REMOVE_RECURSE "${work}")
    message(FATAL_ERROR "${_dgrt_ort_package}-${_dgrt_ort_package_version}.tgz: SHA-256 expected "
      "${_dgrt_ort_sha256}, found ${found}")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${work}" PATTERNS "${_dgrt_ort_header_folder}/*.h")
  file(REMOVE "${archive}")
  file(RENAME "${work}/${_dgrt_ort_header_folder}" "${target}" RESULT renamed)
  file(REMOVE_RECURSE "${work}")
  if(NOT EXISTS "${target}/onnxruntime_cxx_api.h")  # a parallel build that won the race is fine
    message(FATAL_ERROR "could not create ${target}: ${renamed}")
  endif()
endfunction()

function(_dgrt_find_ort_headers out)
  if(NOT DGRT_ORT_INCLUDE AND DEFINED ENV{DGRT_ORT_INCLUDE})
    set(DGRT_ORT_INCLUDE "$ENV{DGRT_ORT_INCLUDE}")
  endif()
  if(DGRT_ORT_INCLUDE)
    if(NOT EXISTS "${DGRT_ORT_INCLUDE}/onnxruntime_cxx_api.h")
      message(FATAL_ERROR "DGRT_ORT_INCLUDE=${DGRT_ORT_INCLUDE}: no onnxruntime_cxx_api.h in this folder")
    endif()
    set(${out} "${DGRT_ORT_INCLUDE}" PARENT_SCOPE)
    return()
  endif()
  find_path(DGRT_ORT_SYSTEM_INCLUDE onnxruntime_cxx_api.h
    PATH_SUFFIXES onnxruntime onnxruntime/core/session onnxruntime/session)
  mark_as_advanced(DGRT_ORT_SYSTEM_INCLUDE)
  if(DGRT_ORT_SYSTEM_INCLUDE)
    file(STRINGS "${DGRT_ORT_SYSTEM_INCLUDE}/onnxruntime_c_api.h" line REGEX "define ORT_API_VERSION")
    string(REGEX MATCH "[0-9]+" system_api "${line}")
    if(system_api GREATER_EQUAL _dgrt_ort_min_api)
      set(${out} "${DGRT_ORT_SYSTEM_INCLUDE}" PARENT_SCOPE)
      return()
    endif()
    message(STATUS "dgrt: system ONNX Runtime headers have API ${system_api}, need ${_dgrt_ort_min_api}; not used")
  endif()
  if(DEFINED ENV{DGRT_CACHE_DIR})
    set(cache "$ENV{DGRT_CACHE_DIR}")
  else()
    set(cache "$ENV{HOME}/.cache/dgrt")
  endif()
  set(folder "${cache}/onnxruntime-headers-${_dgrt_ort_package_version}")
  if(NOT EXISTS "${folder}/onnxruntime_cxx_api.h")
    _dgrt_fetch_ort_headers("${folder}")
  endif()
  set(${out} "${folder}" PARENT_SCOPE)
endfunction()

_dgrt_find_ort_headers(_dgrt_ort_include)
message(STATUS "dgrt: ONNX Runtime headers in ${_dgrt_ort_include}")
add_library(dgrt_ort_headers INTERFACE)
target_include_directories(dgrt_ort_headers SYSTEM INTERFACE "${_dgrt_ort_include}")
# The library is looked up at run time: no symbol of it may be referenced at link time.
target_compile_definitions(dgrt_ort_headers INTERFACE ORT_API_MANUAL_INIT)

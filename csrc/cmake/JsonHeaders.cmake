# Finds the single-header JSON library of Niels Lohmann (3.11 or newer) and defines the interface target
# dgrt_json_headers. Searched: DGRT_JSON_INCLUDE (cache or environment), an installed nlohmann_json CMake package or
# header, the PyPI package nlohmann-json of the Python that runs or serves this build.

function(_dgrt_find_json_headers out)
  if(NOT DGRT_JSON_INCLUDE AND DEFINED ENV{DGRT_JSON_INCLUDE})
    set(DGRT_JSON_INCLUDE "$ENV{DGRT_JSON_INCLUDE}")
  endif()
  if(DGRT_JSON_INCLUDE)
    if(NOT EXISTS "${DGRT_JSON_INCLUDE}/nlohmann/json.hpp")
      message(FATAL_ERROR "DGRT_JSON_INCLUDE=${DGRT_JSON_INCLUDE}: no nlohmann/json.hpp in this folder")
    endif()
    set(${out} "${DGRT_JSON_INCLUDE}" PARENT_SCOPE)
    return()
  endif()
  find_package(nlohmann_json 3.11 QUIET)
  if(nlohmann_json_FOUND)
    get_target_property(include nlohmann_json::nlohmann_json INTERFACE_INCLUDE_DIRECTORIES)
    set(${out} "${include}" PARENT_SCOPE)
    return()
  endif()
  if(Python_EXECUTABLE)
    set(python "${Python_EXECUTABLE}")
  else()
    find_program(DGRT_PYTHON3 python3)
    mark_as_advanced(DGRT_PYTHON3)
    set(python "${DGRT_PYTHON3}")
  endif()
  if(python)
    execute_process(
      COMMAND "${python}" -c "import importlib.util as u; print(u.find_spec('nlohmann_json').submodule_search_locations[0])"
      OUTPUT_VARIABLE location OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(NOT failed AND EXISTS "${location}/include/nlohmann/json.hpp")
      set(${out} "${location}/include" PARENT_SCOPE)
      return()
    endif()
  endif()
  find_path(DGRT_JSON_SYSTEM_INCLUDE nlohmann/json.hpp)
  mark_as_advanced(DGRT_JSON_SYSTEM_INCLUDE)
  if(DGRT_JSON_SYSTEM_INCLUDE)
    set(${out} "${DGRT_JSON_SYSTEM_INCLUDE}" PARENT_SCOPE)
    return()
  endif()
  message(FATAL_ERROR
    "nlohmann/json.hpp not found. Provide it in one of three ways:\n"
    "  1. set DGRT_JSON_INCLUDE to the folder that holds nlohmann/json.hpp;\n"
    "  2. install it (Debian: nlohmann-json3-dev);\n"
    "  3. pip install nlohmann-json==3.12.0 and pass -DPython_EXECUTABLE=<that Python>.")
endfunction()

_dgrt_find_json_headers(_dgrt_json_include)
message(STATUS "dgrt: JSON header in ${_dgrt_json_include}")
add_library(dgrt_json_headers INTERFACE)
target_include_directories(dgrt_json_headers SYSTEM INTERFACE "${_dgrt_json_include}")

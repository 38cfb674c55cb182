# PICME_CUDA decides whether the module also holds kernels for GPUs: then there is a library
# `picme_cuda`. PICME_BUILT_FOR is what the module says of itself. cudart is linked statically and
# loads the driver when a kernel is first asked for, so the module imports without CUDA.
set(PICME_CUDA AUTO CACHE STRING "AUTO takes nvcc where it works, ON insists on it, OFF leaves it")
set(PICME_CUDA_ARCHITECTURES "" CACHE STRING "GPUs, as CMAKE_CUDA_ARCHITECTURES; empty: SM 75 to 120")
set(PICME_CUDA_SOURCES sample_gmm_cuda.cu composite_cuda.cu)
# The bits of the CPU: no contraction, no approximation, denormals kept; in the host's part too.
set(PICME_CUDA_FLAGS -fmad=false -ftz=false -prec-sqrt=true -prec-div=true
                     -Xcompiler=-ffp-contract=off)
list(TRANSFORM PICME_CUDA_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)

# Machine code for each major version that this nvcc knows, and PTX for the rest.
function(picme_choose_architectures result)
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-code
                  OUTPUT_VARIABLE known ERROR_QUIET)
  set(chosen 75)
  foreach(sm 80 90 100 120)
    if(known MATCHES "sm_${sm}[^0-9]")
      list(APPEND chosen ${sm}-real)
    endif()
  endforeach()
  set(${result} "${chosen}" PARENT_SCOPE)
endfunction()

# Sets `why_not`: empty where nvcc compiles a kernel of ours. A macro, for a language is enabled for
# the caller.
macro(picme_try_nvcc)
  set(why_not "")
  include(CheckLanguage)
  find_program(PICME_NVCC NAMES $ENV{CUDACXX} nvcc NO_CMAKE_SYSTEM_PATH)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER AND NOT PICME_NVCC)
    set(why_not "nvcc not found")
  elseif(NOT CMAKE_CUDA_COMPILER)
    set(why_not "nvcc found, but it fails: ${PICME_NVCC}")
  else()
    enable_language(CUDA)
    find_package(CUDAToolkit QUIET)
    if(NOT CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA")
      set(why_not "${CMAKE_CUDA_COMPILER} is not nvcc")
    elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
      set(why_not "nvcc is ${CMAKE_CUDA_COMPILER_VERSION}, CUDA 12 is the least")
    elseif(NOT TARGET CUDA::cudart_static)
      set(why_not "nvcc found, but no cudart_static beside it")
    else()
      list(GET PICME_CUDA_SOURCES 0 first)
      execute_process(COMMAND ${CMAKE_CUDA_COMPILER} ${PICME_CUDA_FLAGS} -std=c++17 -arch=sm_75
                              -c ${first} -o ${CMAKE_BINARY_DIR}/try_nvcc.o
                      RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said)
      if(NOT code EQUAL 0)
        set(why_not "nvcc found, but it does not compile ${first}")
        message(VERBOSE "${said}")
      endif()
    endif()
  endif()
endmacro()

if(NOT PICME_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "PICME_CUDA must be AUTO, ON or OFF, got ${PICME_CUDA}")
endif()
if(PICME_CUDA STREQUAL "OFF")
  set(why_not "PICME_CUDA=OFF")
else()
  picme_try_nvcc()
endif()
if(why_not AND PICME_CUDA STREQUAL "ON")
  message(FATAL_ERROR "PICME_CUDA=ON, but ${why_not}: put a working nvcc of CUDA 12 or later in PATH, "
                      "or name it in CUDACXX; PICME_CUDA=AUTO goes on without.\n${said}")
endif()

if(why_not)
  set(PICME_BUILT_FOR "CPU only (${why_not})")
  return()
endif()
set(architectures ${PICME_CUDA_ARCHITECTURES})
if(NOT architectures)
  picme_choose_architectures(architectures)
endif()
string(REGEX REPLACE "([0-9]+[a-z]?)(-real|-virtual)?;?" " sm_\\1" names "${architectures}")
set(PICME_BUILT_FOR "CPU and CUDA${names}")

add_library(picme_cuda STATIC ${PICME_CUDA_SOURCES})
set_target_properties(picme_cuda PROPERTIES
  POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY None
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_ARCHITECTURES "${architectures}")
target_compile_options(picme_cuda PRIVATE ${PICME_CUDA_FLAGS} -Xcompiler=-Wall,-Wextra)
target_link_libraries(picme_cuda PUBLIC CUDA::cudart_static)

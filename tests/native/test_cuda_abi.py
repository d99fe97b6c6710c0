"""What nvidia.h says of cuBLASLt and the driver, beside their own headers and libraries.

FASTEMBED_RT_CUBLASLT names directories with include/cublasLt.h and lib/libcublasLt.so.*, separated by colons: what the
wheels nvidia-cublas (13) and nvidia-cublas-cu12 unpack to. No GPU is needed.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from cuda_stand_in import names

from fastembed_rt.native import build

GIVEN = [Path(entry) for entry in os.environ.get("FASTEMBED_RT_CUBLASLT", "").split(":") if entry]
TOOLKIT = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
pytestmark = pytest.mark.skipif(not (TOOLKIT / "cuda.h").is_file(), reason=f"no cuda.h in {TOOLKIT}")
SAME = {
    "LT_R_32F": "CUDA_R_32F",
    "LT_R_16F": "CUDA_R_16F",
    "LT_R_16BF": "CUDA_R_16BF",
    "LT_R_8F_E4M3": "CUDA_R_8F_E4M3",
    "LT_TRANSPOSED": "CUBLAS_OP_T",
    "LT_DESC_TRANSPOSE_A": "CUBLASLT_MATMUL_DESC_TRANSA",
    "LT_DESC_D_SCALE_POINTER": "CUBLASLT_MATMUL_DESC_D_SCALE_POINTER",
    "LT_DESC_FAST_ACCUMULATION": "CUBLASLT_MATMUL_DESC_FAST_ACCUM",
    "LT_COMPUTE_32F": "CUBLAS_COMPUTE_32F",
    "LT_DESC_EPILOGUE": "CUBLASLT_MATMUL_DESC_EPILOGUE",
    "LT_DESC_BIAS_POINTER": "CUBLASLT_MATMUL_DESC_BIAS_POINTER",
    "LT_DESC_BIAS_DATA_TYPE": "CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE",
    "LT_EPILOGUE_NONE": "CUBLASLT_EPILOGUE_DEFAULT",
    "LT_EPILOGUE_RELU": "CUBLASLT_EPILOGUE_RELU",
    "LT_EPILOGUE_BIAS": "CUBLASLT_EPILOGUE_BIAS",
    "LT_EPILOGUE_GELU": "CUBLASLT_EPILOGUE_GELU",
    "(LT_EPILOGUE_BIAS | LT_EPILOGUE_GELU)": "CUBLASLT_EPILOGUE_GELU_BIAS",
    "(LT_EPILOGUE_BIAS | LT_EPILOGUE_RELU)": "CUBLASLT_EPILOGUE_RELU_BIAS",
    "LT_PREF_WORKSPACE": "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
    "LT_PREF_REDUCTIONS": "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK",
    "0": "CUBLASLT_REDUCTION_SCHEME_NONE",
    "LT_PREF_ALIGNMENT": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
    "(LT_PREF_ALIGNMENT + 3)": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES",
    "LT_ALGORITHM_SPLIT_K": "CUBLASLT_ALGO_CONFIG_SPLITK_NUM",
    "sizeof(LtAlgorithm)": "sizeof(cublasLtMatmulAlgo_t)",
    "sizeof(LtResult)": "sizeof(cublasLtMatmulHeuristicResult_t)",
    "offsetof(LtResult, workspace)": "offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize)",
    "offsetof(LtResult, state)": "offsetof(cublasLtMatmulHeuristicResult_t, state)",
}
OF_THE_DRIVER = {
    "CU_CAPABILITY_MAJOR": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR",
    "CU_CAPABILITY_MINOR": "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
    "CU_NON_BLOCKING": "CU_STREAM_NON_BLOCKING",
    "CU_CAPTURE_RELAXED": "CU_STREAM_CAPTURE_MODE_RELAXED",
    "sizeof(uint64_t)": "sizeof(CUdeviceptr)",
}


def compiled(directory: Path, same: dict[str, str], includes: list[str], body: str, *flags: str) -> Path:
    lines = [f'#include "{build.SOURCES}/cuda/nvidia.h"', *(f"#include <{name}>" for name in includes)]
    lines += [f'_Static_assert((long)({ours}) == (long)({theirs}), "{theirs}");' for ours, theirs in same.items()]
    (directory / "abi.c").write_text("\n".join(lines) + f"\nint main(void) {{ {body} return 0; }}\n")
    program = directory / "abi"
    command = ["gcc", "-std=gnu11", "-Wno-unused", f"-I{TOOLKIT}", str(directory / "abi.c"), "-o", str(program), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return program


def test_values_of_the_driver_are_those_of_its_header(tmp_path: Path) -> None:
    compiled(tmp_path, OF_THE_DRIVER, ["stddef.h", "cuda.h"], "")
    declared = (TOOLKIT / "cuda.h").read_text(encoding="utf-8", errors="replace")
    for name in names("cuda_names"):
        assert re.search(rf"\b{name.removesuffix('_v2')}\b", declared), name


@pytest.mark.skipif(not GIVEN, reason="FASTEMBED_RT_CUBLASLT names no cuBLASLt")
@pytest.mark.parametrize("place", GIVEN or [Path()], ids=str)
def test_values_and_calls_are_those_of_cublaslt(place: Path, tmp_path: Path) -> None:
    """Descriptions are made on the host: the real library takes every attribute that ours sets, in its size."""
    (library,) = (place / "lib").glob("libcublasLt.so.1?")
    body = f"""
        void *library = dlopen("{library}", RTLD_NOW);
        if (!library) return 1;
        const char *const wanted[] = {{{", ".join(f'"{name}"' for name in names("lt_names"))}}};
        for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) if (!dlsym(library, wanted[k])) return 2;
        int (*desc_create)(void **, int, int) = dlsym(library, "cublasLtMatmulDescCreate");
        int (*desc_set)(void *, int, const void *, size_t) = dlsym(library, "cublasLtMatmulDescSetAttribute");
        int (*pref_create)(void **) = dlsym(library, "cublasLtMatmulPreferenceCreate");
        int (*pref_set)(void *, int, const void *, size_t) = dlsym(library, "cublasLtMatmulPreferenceSetAttribute");
        int (*layout)(void **, int, uint64_t, uint64_t, int64_t) = dlsym(library, "cublasLtMatrixLayoutCreate");
        void *desc = 0, *pref = 0, *made = 0;
        uint32_t epilogue = LT_EPILOGUE_BIAS | LT_EPILOGUE_GELU, none = 0, aligned = 16;
        int32_t type = LT_R_16BF;
        const void *bias = (void *)256;
        size_t workspace = 0;
        if (desc_create(&desc, LT_COMPUTE_32F, LT_R_32F)) return 3;
        if (desc_set(desc, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue)) return 4;
        if (desc_set(desc, LT_DESC_BIAS_POINTER, &bias, sizeof bias)) return 5;
        if (desc_set(desc, LT_DESC_BIAS_DATA_TYPE, &type, sizeof type)) return 6;
        if (!desc_set(desc, LT_DESC_BIAS_DATA_TYPE, &bias, sizeof bias)) return 7; /* sizes are looked at */
        if (pref_create(&pref) || pref_set(pref, LT_PREF_WORKSPACE, &workspace, sizeof workspace)) return 8;
        if (pref_set(pref, LT_PREF_REDUCTIONS, &none, sizeof none)) return 9;
        for (int k = 0; k < 4; k++) if (pref_set(pref, LT_PREF_ALIGNMENT + k, &aligned, sizeof aligned)) return 10;
        if (layout(&made, LT_R_16F, 1024, 16384, 1024)) return 11;
        int transposed = LT_TRANSPOSED;
        int8_t fast = 1;
        if (desc_set(desc, LT_DESC_TRANSPOSE_A, &transposed, sizeof transposed)) return 12;
        if (desc_set(desc, LT_DESC_FAST_ACCUMULATION, &fast, sizeof fast)) return 13;
        if (desc_set(desc, LT_DESC_D_SCALE_POINTER, &bias, sizeof bias)) return 14;
        if (layout(&made, LT_R_8F_E4M3, 1024, 16384, 1024)) return 15;
    """
    includes = ["dlfcn.h", "stddef.h", "cublasLt.h"]
    program = compiled(tmp_path, SAME, includes, body, f"-I{place}/include", "-ldl", "-pthread")
    assert subprocess.run([str(program)], check=False, timeout=300).returncode == 0

/* As much of CUDA as onnxruntime asks for when it creates a session and runs it on one pretended GPU: memory is the
   host's, copies are done, kernels are not launched. What a graph computes is undefined; where its nodes run is real.
   Functions that are not here return 0, which CUDA calls success. */
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
int cudaGetDeviceCount(int*n){*n=1;return 0;}
int cudaGetDevice(int*d){*d=0;return 0;}
const char* cudaGetErrorString(int e){return "fake";}
const char* cudaGetErrorName(int e){return "fake";}
int cudaMalloc(void**p,size_t n){*p=malloc(n?n:1);return 0;}
int cudaMallocHost(void**p,size_t n,unsigned f){*p=malloc(n?n:1);return 0;}
int cudaHostAlloc(void**p,size_t n,unsigned f){*p=malloc(n?n:1);return 0;}
int cudaMallocAsync(void**p,size_t n,void*s){*p=malloc(n?n:1);return 0;}
int cudaFree(void*p){free(p);return 0;}
int cudaFreeHost(void*p){free(p);return 0;}
int cudaMemcpy(void*a,const void*b,size_t n,int k){memcpy(a,b,n);return 0;}
int cudaMemcpyAsync(void*a,const void*b,size_t n,int k,void*s){memcpy(a,b,n);return 0;}
int cudaMemsetAsync(void*a,int v,size_t n,void*s){memset(a,v,n);return 0;}
int cudaMemset(void*a,int v,size_t n){memset(a,v,n);return 0;}
int cudaMemGetInfo(size_t*f,size_t*t){*f=*t=(size_t)80<<30;return 0;}
int cudaStreamCreateWithFlags(void**s,unsigned f){*s=malloc(8);return 0;}
int cudaStreamCreate(void**s){*s=malloc(8);return 0;}
int cudaStreamCreateWithPriority(void**s,unsigned f,int p){*s=malloc(8);return 0;}
int cudaEventCreateWithFlags(void**s,unsigned f){*s=malloc(8);return 0;}
int cudaEventCreate(void**s){*s=malloc(8);return 0;}
int cudaDriverGetVersion(int*v){*v=13000;return 0;}
int cudaRuntimeGetVersion(int*v){*v=13000;return 0;}
int cudaDeviceGetAttribute(int*v,int a,int d){*v= a==75?9: a==76?0: a==16?132: a==97?232448:1024;return 0;}
int cudaStreamIsCapturing(void*s,int*st){*st=0;return 0;}
int cudaPointerGetAttributes(void*a,const void*p){memset(a,0,32);return 0;}
/* Offsets in struct cudaDeviceProp of CUDA 13. */
int cudaGetDeviceProperties(char*p,int d){memset(p,0,1008);strcpy(p,"fake GPU");*(size_t*)(p+288)=(size_t)80<<30;*(size_t*)(p+296)=49152;*(int*)(p+304)=65536;*(int*)(p+308)=32;
 *(size_t*)(p+312)=2147483647;*(int*)(p+320)=1024;*(int*)(p+324)=1024;*(int*)(p+328)=1024;*(int*)(p+332)=64;*(int*)(p+336)=2147483647;*(int*)(p+340)=65535;*(int*)(p+344)=65535;*(size_t*)(p+352)=65536;*(int*)(p+360)=9;*(int*)(p+364)=0;*(int*)(p+384)=132;return 0;}
int cublasCreate_v2(void**h){*h=malloc(8);return 0;}
int cublasLtCreate(void**h){*h=malloc(8);return 0;}
size_t cublasLtGetVersion(void){return 130000;}
int cublasLtMatmulAlgoGetHeuristic(void*h,void*o,void*a,void*b,void*c,void*d,void*p,int asked,void*r,int*n){memset(r,0,96);*n=1;return 0;}
int cuCtxGetDevice(int*d){*d=0;return 0;}
int cuDeviceGetName(char*p,int n,int d){strncpy(p,"fake GPU",n);return 0;}
int cuDeviceGet(int*d,int n){*d=n;return n>0;}
int cuDeviceGetAttribute(int*v,int a,int d){*v= a==75?9:0;return 0;}
int cuMemAlloc_v2(void**p,size_t n){*p=malloc(n);return 0;}
int cuMemFree_v2(void*p){free(p);return 0;}
const char* cublasGetStatusString(int e){return "fake";}
const char* cublasLtGetStatusString(int e){return "fake";}
int cudaStreamEndCapture(void*s,void**g){*g=malloc(8);return 0;}
int cudaGraphInstantiate(void**e,void*g,unsigned long long f){*e=malloc(8);return 0;}
int cudaSetDevice(int d){return d;}
int cudaHostRegister(void*p,size_t n,unsigned f){return 0;}
int cudaHostUnregister(void*p){return 0;}
const char* cudnnGetErrorString(int e){return "fake";}
size_t cudnnGetVersion(void){return 91500;}
int cudnnCreate(void**h){*h=malloc(8);return 0;}
int cudnnCreateTensorDescriptor(void**h){*h=malloc(8);return 0;}
int cudnnCreateReduceTensorDescriptor(void**h){*h=malloc(8);return 0;}
int cudnnGetReductionIndicesSize(void*h,void*r,void*a,void*c,size_t*n){*n=16;return 0;}
int cudnnGetReductionWorkspaceSize(void*h,void*r,void*a,void*c,size_t*n){*n=16;return 0;}

/* As much of CUDA as onnxruntime asks for when it creates a session and runs it on pretended GPUs, of which there are
   FAKE_CUDA_DEVICES (1), of compute capability FAKE_CUDA_CAPABILITY (90): memory is the host's, copies are done, kernels are not launched. What a graph computes is undefined;
   where its nodes run is real, and so is what a card would refuse (state.c). Functions that are not here return 0, which
   CUDA calls success. */
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#define SAFE(what) do { int status = fake_unsafe(what); if (status) return status; } while (0)
#define OWN(what, thing) do { int status = fake_has(what, thing); if (status) return status; } while (0)
#define HERE(what, at) do { int status = fake_touches(what, at); if (status) return status; } while (0)
typedef struct { unsigned x, y, z; } Sizes;
extern int fake_devices(void), fake_capability(void), fake_device(void), fake_set_device(int), fake_exchange(int *), fake_unsafe(const char *);
extern int fake_begin(void), fake_end(void), fake_captures(void), fake_allocate(void **, size_t), fake_release(void *);
extern int fake_thing(void **), fake_has(const char *, const void *), fake_touches(const char *, const void *);
extern int fake_lock(void *, size_t), fake_unlock(void *), fake_last(int);
extern int fake_match(const char *, const void *, const void *);
int cudaGetDeviceCount(int*n){*n=fake_devices();return 0;}
int cudaGetDevice(int*d){*d=fake_device();return 0;}
int cudaThreadExchangeStreamCaptureMode(int*m){return fake_exchange(m);}
int cudaDeviceSynchronize(void){SAFE("cudaDeviceSynchronize");return 0;}
const char* cudaGetErrorString(int e){return "fake";}
const char* cudaGetErrorName(int e){return "fake";}
int cudaMalloc(void**p,size_t n){SAFE("cudaMalloc");return fake_allocate(p,n);}
int cudaMallocHost(void**p,size_t n,unsigned f){SAFE("cudaMallocHost");*p=malloc(n?n:1);return 0;}
int cudaHostAlloc(void**p,size_t n,unsigned f){SAFE("cudaHostAlloc");*p=malloc(n?n:1);return 0;}
int cudaMallocAsync(void**p,size_t n,void*s){OWN("cudaMallocAsync",s);return fake_allocate(p,n);}
int cudaFree(void*p){SAFE("cudaFree");return fake_release(p);}
int cudaFreeHost(void*p){SAFE("cudaFreeHost");free(p);return 0;}
int cudaMemcpy(void*a,const void*b,size_t n,int k){SAFE("cudaMemcpy");HERE("cudaMemcpy",a);HERE("cudaMemcpy",b);memcpy(a,b,n);return 0;}
int cudaMemcpyAsync(void*a,const void*b,size_t n,int k,void*s){OWN("cudaMemcpyAsync",s);HERE("cudaMemcpyAsync",a);HERE("cudaMemcpyAsync",b);memcpy(a,b,n);return 0;}
int cudaMemsetAsync(void*a,int v,size_t n,void*s){memset(a,v,n);return 0;}
int cudaMemset(void*a,int v,size_t n){memset(a,v,n);return 0;}
int cudaMemGetInfo(size_t*f,size_t*t){*f=*t=(size_t)80<<30;return 0;}
int cudaStreamCreateWithFlags(void**s,unsigned f){return fake_thing(s);}
int cudaStreamCreate(void**s){return fake_thing(s);}
int cudaStreamCreateWithPriority(void**s,unsigned f,int p){return fake_thing(s);}
int cudaEventCreateWithFlags(void**s,unsigned f){return fake_thing(s);}
int cudaEventCreate(void**s){return fake_thing(s);}
int cudaEventRecord(void*e,void*s){OWN("cudaEventRecord",e);OWN("cudaEventRecord",s);return 0;}
int cudaEventSynchronize(void*e){SAFE("cudaEventSynchronize");return 0;}
int cudaStreamSynchronize(void*s){SAFE("cudaStreamSynchronize");return 0;}
int cudaLaunchKernel(const void*f,Sizes g,Sizes b,void**a,size_t m,void*s){OWN("cudaLaunchKernel",s);return 0;}
int cudaLaunchCooperativeKernel(const void*f,Sizes g,Sizes b,void**a,size_t m,void*s){OWN("cudaLaunchCooperativeKernel",s);return 0;}
int cudaStreamBeginCapture(void*s,int m){OWN("cudaStreamBeginCapture",s);return fake_begin();}
int cudaGraphLaunch(void*g,void*s){OWN("cudaGraphLaunch",g);OWN("cudaGraphLaunch",s);return 0;}
int cudaGraphExecDestroy(void*g){SAFE("cudaGraphExecDestroy");return 0;}
int cudaDriverGetVersion(int*v){*v=13000;return 0;}
int cudaRuntimeGetVersion(int*v){*v=13000;return 0;}
int cudaDeviceGetAttribute(int*v,int a,int d){*v= a==75?fake_capability()/10: a==76?fake_capability()%10: a==16?132: a==97?232448:1024;return 0;}
int cudaStreamIsCapturing(void*s,int*st){*st=fake_captures()>0;return 0;}
int cudaPointerGetAttributes(void*a,const void*p){memset(a,0,32);return 0;}
/* Offsets in struct cudaDeviceProp of CUDA 13. */
int cudaGetDeviceProperties(char*p,int d){memset(p,0,1008);strcpy(p,"fake GPU");*(size_t*)(p+288)=(size_t)80<<30;*(size_t*)(p+296)=49152;*(int*)(p+304)=65536;*(int*)(p+308)=32;
 *(size_t*)(p+312)=2147483647;*(int*)(p+320)=1024;*(int*)(p+324)=1024;*(int*)(p+328)=1024;*(int*)(p+332)=64;*(int*)(p+336)=2147483647;*(int*)(p+340)=65535;*(int*)(p+344)=65535;*(size_t*)(p+352)=65536;*(int*)(p+360)=fake_capability()/10;*(int*)(p+364)=fake_capability()%10;*(int*)(p+384)=132;return 0;}
int cublasCreate_v2(void**h){SAFE("cublasCreate");return fake_thing(h);}
int cublasSetStream_v2(void*h,void*s){return fake_match("cublasSetStream",h,s);}
int cublasLtCreate(void**h){SAFE("cublasLtCreate");return fake_thing(h);}
int cublasLtMatmul(void*h,void*o,const void*al,const void*A,void*a,const void*B,void*b,const void*be,const void*C,void*c,void*D,void*d,const void*g,void*w,size_t n,void*s){OWN("cublasLtMatmul",h);OWN("cublasLtMatmul",s);HERE("cublasLtMatmul",A);HERE("cublasLtMatmul",B);HERE("cublasLtMatmul",D);return 0;}
int cuThreadExchangeStreamCaptureMode(int*m){return fake_exchange(m);}
int cuModuleLoadData(void**m,const void*t){SAFE("cuModuleLoadData");return fake_thing(m);}
int cuModuleGetFunction(void**f,void*m,const char*n){*f=m;return 0;}
int cuLaunchKernel(void*f,unsigned a,unsigned b,unsigned c,unsigned d,unsigned e,unsigned g,unsigned h,void*s,void**x,void**y){OWN("cuLaunchKernel",f);OWN("cuLaunchKernel",s);return 0;}
int cuStreamCreate(void**s,unsigned f){return fake_thing(s);}
int cuStreamSynchronize(void*s){SAFE("cuStreamSynchronize");return 0;}
int cuEventCreate(void**s,unsigned f){return fake_thing(s);}
int cuEventRecord(void*e,void*s){OWN("cuEventRecord",e);OWN("cuEventRecord",s);return 0;}
int cuEventSynchronize(void*e){SAFE("cuEventSynchronize");return 0;}
size_t cublasLtGetVersion(void){return 130000;}
int cublasLtMatmulAlgoGetHeuristic(void*h,void*o,void*a,void*b,void*c,void*d,void*p,int asked,void*r,int*n){memset(r,0,96);*n=1;return 0;}
int cuCtxGetDevice(int*d){*d=fake_device();return 0;}
int cuDeviceGetName(char*p,int n,int d){strncpy(p,"fake GPU",n);return 0;}
int cuDeviceGet(int*d,int n){*d=n;return n<0||n>=fake_devices()?101:0;}
int cuDeviceGetAttribute(int*v,int a,int d){*v= a==75?fake_capability()/10: a==76?fake_capability()%10: 0;return 0;}
int cuMemAlloc_v2(void**p,size_t n){SAFE("cuMemAlloc");return fake_allocate(p,n);}
int cuMemFree_v2(void*p){SAFE("cuMemFree");return fake_release(p);}
const char* cublasGetStatusString(int e){return "fake";}
const char* cublasLtGetStatusString(int e){return "fake";}
int cudaStreamEndCapture(void*s,void**g){OWN("cudaStreamEndCapture",s);fake_end();return fake_thing(g);}
int cudaGraphInstantiate(void**e,void*g,unsigned long long f){OWN("cudaGraphInstantiate",g);return fake_thing(e);}
int cudaSetDevice(int d){return fake_set_device(d);}
int cudaHostRegister(void*p,size_t n,unsigned f){SAFE("cudaHostRegister");return fake_lock(p,n);}
int cudaHostUnregister(void*p){SAFE("cudaHostUnregister");return fake_unlock(p);}
int cudaGetLastError(void){return fake_last(1);}
int cudaPeekAtLastError(void){return fake_last(0);}
const char* cudnnGetErrorString(int e){return "fake";}
size_t cudnnGetVersion(void){return 91500;}
int cudnnCreate(void**h){SAFE("cudnnCreate");return fake_thing(h);}
int cudnnSetStream(void*h,void*s){return fake_match("cudnnSetStream",h,s);}
int cudnnCreateTensorDescriptor(void**h){*h=malloc(8);return 0;}
int cudnnCreateReduceTensorDescriptor(void**h){*h=malloc(8);return 0;}
int cudnnGetReductionIndicesSize(void*h,void*r,void*a,void*c,size_t*n){*n=16;return 0;}
int cudnnGetReductionWorkspaceSize(void*h,void*r,void*a,void*c,size_t*n){*n=16;return 0;}

// What every operator of our own domain needs of ONNX Runtime: reading a call's inputs, checked, and telling of an operator.
// Scratch comes from ONNX Runtime's arena, so that a steady state allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/thread_pool.h"
#include "engine/ort_library.h"
#include "kernels/weights.h"

namespace dgrt {

using Shape = std::vector<int64_t>;

// What a kernel is called with.
class Call {
 public:
  Call(OrtKernelContext* context, const char* op) : context_(context), op_(op) {}

  Shape ShapeOf(size_t input) const { return context_.GetInput(input).GetTensorTypeAndShapeInfo().GetShape(); }
  template <typename T>
  const T* Data(size_t input) const {
    return static_cast<const T*>(context_.GetInput(input).GetTensorRawData());
  }
  // Where inputs from `first` on lie, one after the other.
  void Floats(size_t first, std::initializer_list<const float**> fields) const {
    for (const float** const field : fields) *field = Data<float>(first++);
  }
  float* Output(const Shape& shape, size_t output = 0) const {
    return context_.GetOutput(output, shape).GetTensorMutableData<float>();
  }

  // Whether an optional input is there.
  bool Has(size_t input) const { return input < context_.GetInputCount() && context_.GetInput(input) != nullptr; }

  // The weight [..., N, width] of input `values`, whose scales, in a quantised format, are input `scales`.
  WeightMatrix Weight(size_t values, size_t scales, WeightFormat format, int64_t width) const {
    Shape shape = ShapeOf(values);
    if (!IsQuantised(format)) {
      if (Has(scales)) throw InvalidArgument(Message(op_, ", input ", scales, ": expected none, found scales"));
      return {Data<void>(values), nullptr};
    }
    if (!Has(scales)) throw InvalidArgument(Message(op_, ", input ", scales, ": expected scales, found none"));
    if (width > kMaxInt8Width) {
      throw InvalidArgument(Message(op_, ", input ", values, ": expected rows of at most ", kMaxInt8Width, ", found ", width));
    }
    shape.back() = 1;
    Require(scales, shape);
    return {Data<void>(values), Data<void>(scales)};
  }

  // Throws InvalidArgument unless the input has this shape; -1 fits any size. Returns the shape.
  Shape Require(size_t input, const Shape& expected) const {
    const Shape found = ShapeOf(input);
    bool fits = found.size() == expected.size();
    for (size_t i = 0; fits && i < found.size(); ++i) fits = expected[i] == -1 || expected[i] == found[i];
    if (!fits) throw InvalidArgument(Message(op_, ", input ", input, ": expected ", Text(expected), ", found ", Text(found)));
    return found;
  }

  // Runs a kernel whose parameters are complete but for the workspace.
  template <typename Params>
  void Launch(Params params, size_t workspace_bytes, void (*launch)(const Params&, ThreadPool&), ThreadPool& pool) const {
    constexpr size_t kAlignment = 64;
    // Never released: that would race with static destructors.
    static const OrtMemoryInfo* const arena = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault).release();
    Ort::Allocator allocator = context_.GetAllocator(*arena);
    Ort::MemoryAllocation block = allocator.GetAllocation(workspace_bytes + kAlignment);
    const auto address = reinterpret_cast<uintptr_t>(block.get());
    params.workspace = reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment * kAlignment);
    launch(params, pool);
  }

 private:
  static std::string Text(const Shape& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
      text += (i > 0 ? ", " : "") + (shape[i] == -1 ? "?" : std::to_string(shape[i]));
    }
    return text + "]";
  }

  Ort::KernelContext context_;
  const char* op_;
};

// Everything that ONNX Runtime wants to know of an operator, from its name, its input types (of which the last are optional),
// its number of outputs, and a kernel that has `Kernel(const OrtKernelInfo*)` and `Run(const Call&, ThreadPool&)`.
template <typename Kernel>
class Operator : public Ort::CustomOpBase<Operator<Kernel>, Operator<Kernel>, true> {
 public:
  explicit Operator(ThreadPool& pool) : pool_(&pool) {}
  Operator(ThreadPool* pool, const OrtKernelInfo* info) : pool_(pool), kernel_(info) {}

  const char* GetName() const { return Kernel::kName; }
  size_t GetInputTypeCount() const { return Kernel::kInputs.size(); }
  ONNXTensorElementDataType GetInputType(size_t i) const { return Kernel::kInputs[i]; }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t i) const {
    return i + Kernel::kNumOptional < Kernel::kInputs.size() ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }
  size_t GetOutputTypeCount() const { return Kernel::kNumOutputs; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return Guarded([&] { *kernel = new Operator(pool_, info); });
  }
  OrtStatusPtr ComputeV2(OrtKernelContext* context) {
    return Guarded([&] { kernel_.Run(Call(context, Kernel::kName), *pool_); });
  }

 private:
  // No exception may pass through ONNX Runtime's C interface.
  template <typename Body>
  static OrtStatusPtr Guarded(Body body) {
    try {
      body();
      return nullptr;
    } catch (const std::exception& error) {
      return Ort::GetApi().CreateStatus(ORT_FAIL, error.what());
    }
  }

  ThreadPool* pool_;
  Kernel kernel_{nullptr};
};

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

struct WithoutAttributes {
  static constexpr size_t kNumOutputs = 1;
  explicit WithoutAttributes(const OrtKernelInfo*) {}
};

struct WithEps {
  explicit WithEps(const OrtKernelInfo* info) {
    if (info != nullptr) eps = Ort::ConstKernelInfo(info).GetAttribute<float>("eps");
  }
  float eps = 0;
};

}  // namespace dgrt

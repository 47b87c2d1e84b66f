// Implementation of engine/fake_engine.h.
#include "engine/fake_engine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "common/check.h"

namespace dgrt {
namespace {

constexpr float kSure = 60.0f;     // score of a token a row is sure of: softcapped to about 29, entropy about 1e-9
constexpr float kLeaning = 2.0f;

// What row `position` of a layer holds for a token: K and V differ, and so do layers, positions and columns.
float KvNumber(int64_t layer, int64_t position, int32_t token, int64_t column) {
  return static_cast<float>(layer * 1000 + token * 10 + column) + static_cast<float>(position) / 1024.0f;
}

class FakeExecutor : public Executor {
 public:
  FakeExecutor(std::shared_ptr<const FakeScript> script, std::shared_ptr<FakeLog> log, const ModelFacts& model)
      : script_(std::move(script)), log_(std::move(log)), model_(model) {
    history_.reserve(static_cast<size_t>(model.context_len));
    step_at_.assign(static_cast<size_t>(model.context_len + 1), 0);
  }

  void UseThreads(PassThreads) override {}  // it has one in any case

  void Prefill(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv) override {
    Begin(nullptr);
    WriteRows(tokens, kv_len, kv);
    Record(kv_len, tokens);
  }

  void Score(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv, float* hidden) override {
    const int64_t call = Begin(&FakeLog::num_score_calls);
    WriteRows(tokens, kv_len, kv);
    FillCausal(tokens, kv_len, hidden);
    MaybeSpoil(call, hidden, tokens.size());
  }

  void Denoise(std::span<const int32_t> canvas, int64_t kv_len, std::span<const KvLayerView> kv, const float* soft,
               float* hidden) override {
    const int64_t call = Begin(&FakeLog::num_denoise_calls);
    FillHidden(canvas, kv_len, kv, NumberOfStep(canvas, kv_len, soft), hidden);
    MaybeSpoil(call, hidden, canvas.size());
  }

  void Packed(const PackedRows& rows, int64_t kv_len, std::span<const KvLayerView> kv,
              std::span<const KvLayerView> next_kv) override {
    const int64_t call = Begin(&FakeLog::num_packed_calls);
    FillHidden(rows.canvas, kv_len, kv, NumberOfStep(rows.canvas, kv_len, rows.soft), rows.hidden);
    WriteRows(rows.candidate, kv_len, kv);
    Record(kv_len, rows.candidate);
    const int64_t next_len = kv_len + model_.canvas_len;
    FillHidden(rows.next, next_len, next_kv, NumberOfStep(rows.next, next_len, rows.next_soft), rows.next_hidden);
    MaybeSpoil(call, script_->spoil_next ? rows.next_hidden : rows.hidden, rows.canvas.size());
  }

  void Check(const CheckRows& rows, int64_t kv_len, std::span<const KvLayerView> kv) override {
    const int64_t call = Begin(&FakeLog::num_check_calls);
    DGRT_CHECK(!rows.canvases.empty() && !rows.draft.empty());
    const auto length = static_cast<size_t>(model_.canvas_len);
    for (size_t row = 0; row < rows.canvases.size(); row += length) {
      float* const hidden = rows.canvas_hidden + static_cast<int64_t>(row) * model_.hidden_size;
      const auto canvas = rows.canvases.subspan(row, length);
      const int32_t check_step = script_->checks_are_sure ? 1 + script_->num_steps : 1;
      const int32_t step = row == 0 ? NumberOfStep(canvas, kv_len, rows.soft) : check_step;
      FillHidden(canvas, kv_len, kv, step, hidden);
    }
    WriteRows(rows.draft, kv_len, kv);
    FillCausal(rows.draft, kv_len, rows.draft_hidden);
    if (script_->spoil_next) {
      MaybeSpoil(call, rows.draft_hidden, rows.draft.size());
    } else {
      MaybeSpoil(call, rows.canvas_hidden, rows.canvases.size());
    }
  }

  void Draft(int32_t anchor, int64_t position, std::span<const KvLayerView> kv, const float* evidence, int64_t num_rows,
             float* hidden) override {
    const int64_t call = Begin(&FakeLog::num_draft_calls);
    DGRT_CHECK(model_.drafter && num_rows >= 1 && num_rows <= model_.drafter->block_len);
    DGRT_CHECK(anchor >= 0 && anchor < model_.vocab_size);
    Recall(position, kv);
    for (const int32_t layer : model_.drafter->kv_layers) {
      CheckWritten(static_cast<size_t>(layer), 0, position, kv[static_cast<size_t>(layer)]);
    }
    std::fill_n(hidden, num_rows * model_.hidden_size, 0.0f);
    for (int64_t row = 0; row < num_rows; ++row) {
      const int64_t at = position + 1 + row;
      const bool errs = script_->draft_error > 0 && !(evidence != nullptr && script_->evidence_helps);
      const bool is_wrong = errs && at % script_->draft_error == 0;
      const int64_t token = (TargetAt(at - script_->prompt_len) + (is_wrong ? 1 : 0)) % model_.vocab_size;
      hidden[row * model_.hidden_size + token] = script_->draft_is_sure ? kSure : kLeaning;
    }
    MaybeSpoil(call, hidden, static_cast<size_t>(num_rows));
    const std::lock_guard lock(log_->mutex);
    log_->last_draft = {anchor, position, num_rows};
  }

 private:
  bool IsZero(const float* soft) const {
    return std::all_of(soft, soft + model_.canvas_len * model_.hidden_size, [](float x) { return x == 0.0f; });
  }

  // Of the canvas at kv_len: 1 without self-conditioning, else one more than the pass before.
  int32_t NumberOfStep(std::span<const int32_t> canvas, int64_t kv_len, const float* soft) {
    int32_t& step = step_at_[static_cast<size_t>(kv_len)];
    if (IsZero(soft)) return step = 1;
    ++step;
    if (!script_->knows_steps) return step;
    std::vector<float> shown(soft, soft + model_.canvas_len * model_.hidden_size);
    shown.insert(shown.end(), canvas.begin(), canvas.end());
    shown.push_back(static_cast<float>(kv_len));
    return step = known_steps_.try_emplace(std::move(shown), step).first->second;
  }

  // Behind rows that were just written.
  void FillCausal(std::span<const int32_t> tokens, int64_t kv_len, float* hidden) const {
    const size_t num_floats = tokens.size() * static_cast<size_t>(model_.hidden_size);
    std::fill_n(hidden, num_floats, 0.0f);
    int64_t mixed = 0;
    for (int64_t position = 0; position < kv_len; ++position) mixed += history_[static_cast<size_t>(position)] * (position + 1);
    for (size_t row = 0; row < tokens.size(); ++row) {
      const int64_t next = kv_len + static_cast<int64_t>(row) + 1;
      mixed += tokens[row] * next;
      const bool sure = next % script_->causal_doubt != 0;
      const int64_t token = sure ? TargetAt(next - script_->prompt_len) : mixed % model_.vocab_size;
      hidden[static_cast<int64_t>(row) * model_.hidden_size + token] = sure ? kSure : kLeaning;
    }
  }

  void FillHidden(std::span<const int32_t> canvas, int64_t kv_len, std::span<const KvLayerView> kv, int32_t step,
                  float* hidden) {
    DGRT_CHECK(static_cast<int64_t>(canvas.size()) == model_.canvas_len);
    Recall(kv_len, kv);
    const size_t num_floats = canvas.size() * static_cast<size_t>(model_.hidden_size);
    const int64_t mixed = CheckVisible(kv_len, kv);
    std::fill_n(hidden, num_floats, 0.0f);
    for (size_t row = 0; row < canvas.size(); ++row) {
      DGRT_CHECK(canvas[row] >= 0 && canvas[row] < model_.vocab_size);
      const bool copies = script_->copies_from_row >= 0 && static_cast<int64_t>(row) >= script_->copies_from_row;
      const bool sure = copies || step >= 1 + static_cast<int64_t>(row) * script_->num_steps / model_.canvas_len;
      const int64_t position = kv_len - script_->prompt_len + static_cast<int64_t>(row);
      int64_t token = copies ? canvas[row] : sure ? TargetAt(position) : (canvas[row] + mixed) % model_.vocab_size;
      if (row == 0 && script_->new_mind_at > 0 && step >= script_->new_mind_at) token = (token + 1) % model_.vocab_size;
      hidden[static_cast<int64_t>(row) * model_.hidden_size + token] = sure ? kSure : kLeaning;
    }
  }

  void MaybeSpoil(int64_t call, float* hidden, size_t num_rows) const {
    if (call != script_->nan_at_call) return;
    const int64_t row = script_->spoil_last_row ? static_cast<int64_t>(num_rows) - 1 : 0;
    hidden[row * model_.hidden_size + model_.hidden_size / 2] = std::numeric_limits<float>::quiet_NaN();
  }

  // Returns the number of the call.
  int64_t Begin(int64_t FakeLog::*count) {
    int64_t call;
    {
      const std::lock_guard lock(log_->mutex);
      call = ++log_->num_calls;
    }
    if (script_->on_call) script_->on_call(call);
    if (call == script_->fail_at_call) throw DeviceError(Message("fake failure at call ", call));
    if (count != nullptr) {
      const std::lock_guard lock(log_->mutex);
      ++((*log_).*count);
    }
    return call;
  }

  void Record(int64_t kv_len, std::span<const int32_t> tokens) {
    if (!script_->record_prefills) return;
    const std::lock_guard lock(log_->mutex);
    log_->prefills.push_back({kv_len, {tokens.begin(), tokens.end()}});
  }

  void WriteRows(std::span<const int32_t> tokens, int64_t kv_len, std::span<const KvLayerView> kv) {
    Recall(kv_len, kv);
    history_.resize(static_cast<size_t>(kv_len));  // a pass that failed before may have got further
    CheckVisible(kv_len, kv);
    for (size_t i = 0; i < tokens.size(); ++i) {
      DGRT_CHECK(tokens[i] >= 0 && tokens[i] < model_.vocab_size);
      WriteRow(kv_len + static_cast<int64_t>(i), tokens[i], kv);
      history_.push_back(tokens[i]);
    }
  }

  // Rows that another executor wrote, shared by the prefix cache: the full layer says which tokens they are of.
  void Recall(int64_t kv_len, std::span<const KvLayerView> kv) {
    for (auto position = static_cast<int64_t>(history_.size()); position < kv_len; ++position) {
      const float number = kv[1].k[position * kv[1].width] - KvNumber(1, position, 0, 0);
      history_.push_back(static_cast<int32_t>(std::lround(number / 10)));
    }
  }

  int64_t TargetAt(int64_t position) const {
    const int64_t last = static_cast<int64_t>(script_->target.size()) - 1;
    return script_->target[static_cast<size_t>(std::clamp<int64_t>(position, 0, last))];
  }

  void WriteRow(int64_t position, int32_t token, std::span<const KvLayerView> kv) const {
    for (size_t layer = 0; layer < kv.size(); ++layer) {
      for (int64_t column = 0; column < kv[layer].width; ++column) {
        const float number = KvNumber(static_cast<int64_t>(layer), position, token, column);
        kv[layer].k[position * kv[layer].width + column] = number;
        kv[layer].v[position * kv[layer].width + column] = -number;
      }
    }
  }

  // Rows [first, end) of a layer must be what was written for them. Returns a number mixed from their tokens.
  int64_t CheckWritten(size_t layer, int64_t first, int64_t end, const KvLayerView& rows) const {
    int64_t mixed = 0;
    for (int64_t position = first; position < end; ++position) {
      const int32_t token = history_[static_cast<size_t>(position)];
      mixed += token * (position + 1);
      for (int64_t column = 0; column < rows.width; ++column) {
        const float number = KvNumber(static_cast<int64_t>(layer), position, token, column);
        DGRT_CHECK(rows.k[position * rows.width + column] == number);
        DGRT_CHECK(rows.v[position * rows.width + column] == -number);
      }
    }
    return mixed;
  }

  // Every row from `first` to kv_len, of all layers.
  int64_t CheckVisible(int64_t kv_len, std::span<const KvLayerView> kv) const {
    DGRT_CHECK(kv.size() == model_.layers.size());
    int64_t mixed = 0;
    for (size_t layer = 0; layer < kv.size(); ++layer) {
      const bool sliding = model_.layers[layer].type == LayerType::kSliding;
      DGRT_CHECK(kv[layer].first == (sliding ? std::max<int64_t>(0, kv_len - model_.sliding_window + 1) : 0));
      DGRT_CHECK(kv[layer].width == model_.layers[layer].kv_width());
      mixed += CheckWritten(layer, kv[layer].first, kv_len, kv[layer]);
    }
    return mixed;
  }

  const std::shared_ptr<const FakeScript> script_;
  const std::shared_ptr<FakeLog> log_;
  const ModelFacts& model_;
  std::vector<int32_t> history_;  // tokens whose rows were written
  std::vector<int32_t> step_at_;  // [kv_len]: steps done of the canvas there
  std::map<std::vector<float>, int32_t> known_steps_;
};

}  // namespace

FakeEngine::FakeEngine(std::shared_ptr<FakeScript> script, std::shared_ptr<FakeLog> log)
    : script_(std::move(script)), log_(std::move(log)) {
  const int64_t size = script_->vocab_size;
  model_.vocab_size = model_.hidden_size = size;
  model_.canvas_len = script_->canvas_len;
  model_.context_len = script_->context_len;
  model_.sliding_window = script_->sliding_window;
  model_.num_heads = 2;
  model_.final_logit_softcap = 30;
  model_.layers = {{LayerType::kSliding, 3, 2}, {LayerType::kFull, script_->full_width, 1}};
  if (script_->block_len > 0) model_.drafter = DrafterFacts{{1}, script_->block_len};
  table_.assign(static_cast<size_t>(size * size), 0.0f);
  for (int64_t i = 0; i < size; ++i) table_[static_cast<size_t>(i * size + i)] = 1.0f;
}

EmbeddingTable FakeEngine::embedding() const {
  return {table_.data(), DType::kFloat32, model_.vocab_size, model_.hidden_size};
}

std::unique_ptr<Executor> FakeEngine::CreateExecutor() {
  return std::make_unique<FakeExecutor>(script_, log_, model_);
}

}  // namespace dgrt

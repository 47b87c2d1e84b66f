// One nested evaluation: bounds how deep they go and keeps the line that an error names.
#pragma once

#include <exception>

#include "text/jinja/evaluation/evaluator.h"
#include "text/jinja/limits.h"

namespace dgrt::jinja {

class Evaluator::Level {
 public:
  Level(Evaluator* evaluator, int line) : evaluator_(evaluator), outer_line_(evaluator->line_) {
    evaluator->line_ = line;
    if (evaluator->depth_ >= kMaxEvaluationDepth) {
      NotSupported("evaluation goes deeper than ", kMaxEvaluationDepth, " levels");
    }
    ++evaluator->depth_;
    evaluator->heap_.Spend(1);
  }
  ~Level() {
    --evaluator_->depth_;
    if (std::uncaught_exceptions() == 0) evaluator_->line_ = outer_line_;
  }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  Evaluator* evaluator_;
  int outer_line_;
};

}  // namespace dgrt::jinja

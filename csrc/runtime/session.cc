// How a session takes its turn (lanes.h). Called by every stage that runs a pass.
#include "common/check.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {

namespace {

template <typename IsStopped>
Lanes::Turn Enter(SessionState& state, Lanes::Clock::time_point deadline, IsStopped is_stopped) {
  StageTimer timer(&state.stats.wait_ms);
  const Lanes::Turn turn = state.lanes.Enter(state.lane_user, deadline, is_stopped);
  if (turn == Lanes::Turn::kGranted) state.executor->UseThreads(state.lane_user.threads);
  return turn;
}

}  // namespace

HeldLane TakeLane(SessionState& state, int64_t num_rows) {
  const Lanes::Turn turn = Enter(state, state.deadline, [&state] { return state.cancelled.load(); });
  if (turn == Lanes::Turn::kStopped) return {};
  if (turn == Lanes::Turn::kLate) {
    throw DeadlineExceeded(Message("deadline of ", state.options.deadline_ms, " ms passed after ", state.tokens.size(),
                                   " tokens"));
  }
  return {state.lanes, state.lane_user, num_rows};
}

HeldLane TakeLaneToFinish(SessionState& state, int64_t num_rows) {
  Enter(state, Lanes::Clock::time_point::max(), [] { return false; });
  return {state.lanes, state.lane_user, num_rows};
}

void GiveLaneBack(SessionState& state) { state.lanes.GiveBack(state.lane_user); }

}  // namespace dgrt

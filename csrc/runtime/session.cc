// How a session takes its turn (lanes.h). Called by every stage that runs a pass.
#include "common/check.h"
#include "runtime/session.h"
#include "runtime/stage_timer.h"

namespace dgrt {

HeldLane TakeLane(SessionState& state, int64_t num_rows) {
  Lanes::Turn turn;
  {
    StageTimer timer(&state.stats.wait_ms);
    turn = state.lanes.Enter(state.lane_user, state.deadline, [&state] { return state.cancelled.load(); });
  }
  if (turn == Lanes::Turn::kStopped) return {};
  if (turn == Lanes::Turn::kLate) {
    throw DeadlineExceeded(Message("deadline of ", state.options.deadline_ms, " ms passed after ", state.tokens.size(),
                                   " tokens"));
  }
  state.executor->UseThreads(state.lane_user.threads);
  return {state.lanes, state.lane_user, num_rows};
}

HeldLane TakeLaneToFinish(SessionState& state, int64_t num_rows) {
  {
    StageTimer timer(&state.stats.wait_ms);
    state.lanes.Enter(state.lane_user, Lanes::Clock::time_point::max(), [] { return false; });
  }
  state.executor->UseThreads(state.lane_user.threads);
  return {state.lanes, state.lane_user, num_rows};
}

void GiveLaneBack(SessionState& state) { state.lanes.GiveBack(state.lane_user); }

}  // namespace dgrt

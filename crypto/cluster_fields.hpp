#pragma once

// The numeric keys of [limits], [timing] and [service.http], once, for the reader, the checker and the writer
// of the cluster file. Plain functions, any thread. Inside crypto/ only.

#include <cstdint>
#include <string_view>

#include "crypto/cluster.hpp"

namespace zz::crypto {

struct NumberRange {
  std::uint64_t min;
  std::uint64_t max;
};

inline constexpr std::uint64_t kKi = 1u << 10;
inline constexpr std::uint64_t kMi = 1u << 20;
inline constexpr std::uint64_t kGi = 1u << 30;
inline constexpr std::uint64_t kDayMs = 24u * 3'600'000u;

// visit(key, member, range, comment) for every key, in the order in which the file is written. `limits` may be const.
template <class L, class Visit>
void each_limit(L& limits, Visit&& visit) {
  visit("frame_bytes_max", limits.frame_bytes_max, NumberRange{64 * kKi, 256 * kMi}, "one frame on a channel");
  visit("op_bytes_max", limits.op_bytes_max, NumberRange{1 * kKi, 128 * kMi}, "one request or one reply");
  visit("batch_requests_max", limits.batch_requests_max, NumberRange{1, 65'535}, "requests ordered together");
  visit("batch_bytes_max", limits.batch_bytes_max, NumberRange{1 * kKi, 128 * kMi},
        "bytes ordered together; one larger request travels alone");
  visit("window_batches", limits.window_batches, NumberRange{8, 1'024},
        "batches that may be under way above the stable checkpoint");
  visit("checkpoint_batches", limits.checkpoint_batches, NumberRange{1, 1'024},
        "a checkpoint is taken at the latest after so many batches ...");
  visit("checkpoint_requests", limits.checkpoint_requests, NumberRange{1, 1'000'000}, "... or so many requests ...");
  visit("checkpoint_bytes", limits.checkpoint_bytes, NumberRange{1, 16 * kGi}, "... or so many bytes of operations");
  visit("client_window", limits.client_window, NumberRange{1, 65'535}, "outstanding requests of a session");
  visit("client_sessions_max", limits.client_sessions_max, NumberRange{1, 65'535},
        "live sessions of one client identity on a node");
  visit("sessions_max", limits.sessions_max, NumberRange{1, 1'000'000},
        "sessions an executor remembers; the oldest is forgotten first");
  visit("send_queue_bytes_max", limits.send_queue_bytes_max, NumberRange{64 * kKi, 16 * kGi},
        "waiting to be sent to one peer");
  visit("history_bytes_max", limits.history_bytes_max, NumberRange{64 * kKi, 1024 * kGi},
        "ordered batches kept for replay; when full, requests are answered BUSY");
  visit("gateway_connections_max", limits.gateway_connections_max, NumberRange{1, 65'535}, "HTTP connections");
  visit("gateway_header_bytes_max", limits.gateway_header_bytes_max, NumberRange{1 * kKi, 1 * kMi},
        "header of one HTTP request");
  visit("gateway_body_bytes_max", limits.gateway_body_bytes_max, NumberRange{0, 128 * kMi}, "body of one HTTP request");
  visit("gateway_idle_ms", limits.gateway_idle_ms, NumberRange{100, kDayMs},
        "an HTTP connection that says nothing for so long is closed");
}

template <class T, class Visit>
void each_timing(T& timing, Visit&& visit) {
  visit("tick_ms", timing.tick_ms, NumberRange{1, 1'000}, "how often timers are looked at");
  visit("clock_bound_ms", timing.clock_bound_ms, NumberRange{10, kDayMs},
        "largest difference of the agreed time from a node's own clock");
  visit("body_timeout_ms", timing.body_timeout_ms, NumberRange{10, kDayMs},
        "a node that lacks the bodies of a proposal gives up after this");
  visit("view_timeout_ms", timing.view_timeout_ms, NumberRange{10, kDayMs},
        "a request that waits longer makes the nodes change the primary; doubled for every one that fails ...");
  visit("view_timeout_max_ms", timing.view_timeout_max_ms, NumberRange{10, kDayMs}, "... up to this");
  visit("progress_ms", timing.progress_ms, NumberRange{1, kDayMs}, "how often nodes tell each other how far they are");
  visit("overdue_floor_ms", timing.overdue_floor_ms, NumberRange{1, kDayMs},
        "a vote is overdue not earlier than this after the first vote ...");
  visit("overdue_ceiling_ms", timing.overdue_ceiling_ms, NumberRange{1, kDayMs}, "... and not later than this ...");
  visit("overdue_factor", timing.overdue_factor, NumberRange{1, 1'000}, "... at so many times the usual spread");
  visit("execution_timeout_ms", timing.execution_timeout_ms, NumberRange{10, kDayMs}, "no vote at all");
  visit("gone_ms", timing.gone_ms, NumberRange{1, kDayMs}, "channel to an active slot lost and not back");
  visit("late_ms", timing.late_ms, NumberRange{1, kDayMs}, "no vote of a slot so long after the batch was settled");
  visit("wake_budget_ms", timing.wake_budget_ms, NumberRange{10, kDayMs},
        "a woken slot must be connected by then, else it is asked again");
  visit("quarantine_ms", timing.quarantine_ms, NumberRange{0, kDayMs},
        "a slot that is wrong too often stays out so long, then eight times as long; 0: never");
  visit("retransmit_ms", timing.retransmit_ms, NumberRange{1, kDayMs}, "a client sends again, doubled per try");
  visit("hedge_ms", timing.hedge_ms, NumberRange{1, kDayMs}, "a client asks every node when the home node is slow");
}

template <class S, class Visit>
void each_rejuvenation(S& service, Visit&& visit) {
  visit("rejuvenate_every_ms", service.rejuvenate_every_ms, NumberRange{0, 0xffff'ffff},
        "a healthy replica is swapped for a fresh one this often (0: never) ...");
  visit("rejuvenate_every_requests", service.rejuvenate_every_requests, NumberRange{0, 0xffff'ffff},
        "... or after so many requests");
}

template <class H, class Visit>
void each_http_number(H& http, Visit&& visit) {
  visit("request_timeout_ms", http.request_timeout_ms, NumberRange{10, kDayMs},
        "a request that takes longer is answered 504 by the replica");
  visit("start_timeout_ms", http.start_timeout_ms, NumberRange{10, kDayMs}, "until the service accepts on $PORT");
}

}  // namespace zz::crypto

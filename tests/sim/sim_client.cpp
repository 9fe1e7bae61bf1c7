#include "tests/sim/sim_client.hpp"

#include <algorithm>

namespace zz::sim {

namespace {

constexpr ServiceId kService{0};
constexpr std::uint64_t kKeys = 5;
constexpr std::uint64_t kCounters = 3;
constexpr std::int64_t kRoomRetry = 20'000;

client::SessionConfig session_config(const crypto::ClusterFile& cluster, SessionId id) {
  client::SessionConfig config;
  config.id = id;
  config.f = cluster.f;
  config.window = cluster.limits.client_window;
  config.hedge = Micros{std::int64_t{cluster.timing.hedge_ms} * 1'000};
  config.retransmit = Micros{std::int64_t{cluster.timing.retransmit_ms} * 1'000};
  config.retransmit_max = Micros{2'000'000};
  config.timeout = Micros{std::int64_t{1} << 50};  // an unanswered request is a failure, never an outcome
  return config;
}

std::string numbered(std::string_view prefix, std::uint64_t number) {
  return std::string(prefix) + std::to_string(number);
}

}  // namespace

// ---- correct clients -------------------------------------------------------------------------------------------

SimClient::SimClient(Kernel& kernel, Network& network, ClientId id, std::uint32_t workers, std::uint64_t seed)
    : kernel_(kernel),
      network_(network),
      id_(id),
      prng_(seed),
      session_(session_config(kernel.cluster, SessionId{prng_.next() >> 1})),
      workers_(workers),
      idle_(workers) {}

void SimClient::start_worker(std::int64_t delay) {
  ZZ_ASSERT(idle_ > 0 && left_ > 0);
  --idle_;
  --left_;
  kernel_.after(delay, {Happening::Kind::kSubmit, static_cast<Party>(id_.value), 0, 0, nullptr});
}

void SimClient::allot(std::uint32_t count, std::int64_t think_max) {
  left_ += count;
  think_max_ = think_max;
  while (idle_ > 0 && left_ > 0) start_worker(between(prng_, 0, think_max_));
}

SharedBytes SimClient::next_op() {
  const std::uint64_t draw = prng_.below(100);
  const std::uint64_t key = prng_.below(kKeys);
  std::string op;
  if (draw < 35) {
    op = numbered("put k", key) + numbered(" v", id_.value) + numbered("-", submitted_);
  } else if (draw < 65) {
    op = numbered("get k", key);
  } else if (draw < 90) {
    const std::uint64_t counter = prng_.below(kCounters);  // one after the other: compilers differ in the order
    op = numbered("add c", counter) + numbered(" ", prng_.below(10));
  } else if (draw < 95) {
    op = numbered("del k", key);
  } else {
    op = draw < 98 ? "time" : "seed";
  }
  return SharedBytes::copy(std::string_view(op));
}

void SimClient::submit() {
  session_.tick(kernel_.now);
  if (!session_.has_room()) {  // its oldest request holds up the window
    return kernel_.after(kRoomRetry, {Happening::Kind::kSubmit, static_cast<Party>(id_.value), 0, 0, nullptr});
  }
  const SharedBytes op = next_op();
  const auto number = session_.submit(op);
  ZZ_ASSERT(number);
  ++submitted_;
  open_.emplace(*number, kernel_.now);
  kernel_.witness->submitted(kernel_.now, id_, session_.id(), *number, op);
  carry_out();
}

void SimClient::deliver(Party node, const MessagePtr& message) {
  session_.tick(kernel_.now);
  const NodeId from{node};
  Refusal refusal = Refusal::kWrongRole;
  if (message->service != kService) {
    refusal = Refusal::kUnknownService;
  } else if (const auto* acks = std::get_if<agreement::Acks>(&message->body)) {
    refusal = session_.step(from, *acks);
  } else if (const auto* rejected = std::get_if<agreement::Rejected>(&message->body)) {
    refusal = session_.step(from, *rejected);
  }
  if (refusal != Refusal::kNone) kernel_.refusals.add(refusal);
  carry_out();
}

void SimClient::link_up(Party node) {
  session_.channel_up(NodeId{node});
  carry_out();
}

void SimClient::tick() {
  if (open_.empty()) return;
  session_.tick(kernel_.now);
  carry_out();
}

void SimClient::carry_out() {
  if (!session_.has_output()) return;
  client::SessionOutput out = session_.take_output();
  const Party self = kernel_.parties.client(id_.value);
  for (client::SessionOutput::Send& send : out.send) {
    const auto message =
        std::make_shared<const agreement::Message>(agreement::Message{kService, std::move(send.requests)});
    for (Party node = 0; node < kernel_.parties.nodes; ++node) {
      if (!send.to || send.to->value == node) network_.send(self, node, message);
    }
  }
  for (const client::Completed& completed : out.completed) {
    const auto found = open_.find(completed.number);
    if (found == open_.end()) continue;
    longest_wait_ = std::max(longest_wait_, Micros{kernel_.now.value - found->second.value});
    open_.erase(found);
    if (completed.outcome != client::Outcome::kReply) {
      complaint_ = "request " + std::to_string(completed.number.value) + " of client " + std::to_string(id_.value) +
                   " ended without a reply: " + std::string(to_string(completed.reason));
      return;
    }
    ++answered_;
    kernel_.witness->accepted(kernel_.now, id_, session_.id(), completed.number, completed.reply);
    ++idle_;
    if (left_ > 0) start_worker(between(prng_, 0, think_max_));
  }
}

std::optional<SimClient::Waiting> SimClient::oldest() const {
  if (open_.empty()) return std::nullopt;
  const auto first =
      std::min_element(open_.begin(), open_.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return Waiting{first->first, first->second};
}

// ---- hostile clients -------------------------------------------------------------------------------------------

HostileClient::HostileClient(Kernel& kernel, Network& network, ClientId id, std::uint64_t seed)
    : kernel_(kernel), network_(network), id_(id), prng_(seed), kind_(prng_.below(6)), session_{prng_.next() >> 1} {}

void HostileClient::send(Party node, SessionId session, RequestNumber number, const SharedBytes& op) {
  agreement::Requests requests{session, {}};
  requests.items.push_back({number, 0, op});
  network_.send(kernel_.parties.client(id_.value), node,
                std::make_shared<const agreement::Message>(agreement::Message{kService, std::move(requests)}));
}

void HostileClient::act() {
  const std::uint64_t kind = kind_ < 5 ? kind_ : prng_.below(5);
  const std::uint16_t nodes = kernel_.parties.nodes;
  const auto op = [this] {
    const std::uint64_t key = prng_.below(kKeys);
    return SharedBytes::copy(std::string_view(numbered("put k", key) + numbered(" h", prng_.next() % 1000)));
  };
  switch (kind) {
    case 0: {  // to one node, or to some
      kernel_.count("hostile-client.some-nodes");
      const SharedBytes same = op();
      const std::uint64_t mask = chance(prng_, 50) ? 1ULL << prng_.below(nodes) : prng_.next();
      for (Party node = 0; node < nodes; ++node) {
        if ((mask >> node & 1) != 0) send(node, session_, RequestNumber{next_}, same);
      }
      ++next_;
      break;
    }
    case 1: {  // different operations under one number
      kernel_.count("hostile-client.two-operations");
      for (Party node = 0; node < nodes; ++node) send(node, session_, RequestNumber{next_}, op());
      ++next_;
      break;
    }
    case 2: {  // numbers that are used, skipped, 0 or absurd
      kernel_.count("hostile-client.numbers");
      const std::uint64_t draw = prng_.below(6);
      std::uint64_t number = next_;
      if (draw == 0) number = 0;
      if (draw == 1) number = ~std::uint64_t{0};
      if (draw == 2) number = next_ + prng_.below(40);
      if (draw == 3 && next_ > 1) number = 1 + prng_.below(next_ - 1);
      if (draw >= 4) ++next_;
      const SharedBytes same = op();
      for (Party node = 0; node < nodes; ++node) send(node, session_, RequestNumber{number}, same);
      break;
    }
    case 3: {  // many sessions
      kernel_.count("hostile-client.sessions");
      session_ = SessionId{prng_.next() >> 1};
      next_ = 1;
      const SharedBytes same = op();
      for (Party node = 0; node < nodes; ++node) {
        if (chance(prng_, 80)) send(node, session_, RequestNumber{next_}, same);
      }
      ++next_;
      break;
    }
    default: {  // a flood of repeats
      kernel_.count("hostile-client.flood");
      const SharedBytes same = op();
      for (int i = 0; i < 10; ++i) {
        for (Party node = 0; node < nodes; ++node) send(node, session_, RequestNumber{next_}, same);
      }
      if (chance(prng_, 50)) ++next_;
      break;
    }
  }
  const std::int64_t pause =
      kernel_.stable_phase ? between(prng_, 200'000, 1'500'000) : between(prng_, 50'000, 800'000);
  kernel_.after(pause, {Happening::Kind::kHostile, static_cast<Party>(id_.value), 0, 0, nullptr});
}

}  // namespace zz::sim

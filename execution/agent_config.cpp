#include "execution/agent_config.hpp"

#include <spdlog/spdlog.h>

#include "agreement/certificates.hpp"

namespace zz::execution {

namespace {

constexpr std::string_view kKvSessionExpired = "error session expired";
// What fits into the order's window, the stable ones, and two for the disk.
constexpr std::uint32_t kSnapshotsMax = 12;

}  // namespace

ExecutorConfig executor_config(const crypto::ClusterFile& cluster, const AgentOptions& options) {
  const crypto::ServiceEntry& service = cluster.services[options.service.value];
  ExecutorConfig config;
  config.service = options.service;
  config.slot = options.slot;
  config.incarnation = options.incarnation;
  config.f = cluster.f;
  config.g = service.g;
  config.sessions.client_window = cluster.limits.client_window;
  config.sessions.sessions_max = cluster.limits.sessions_max;
  config.sessions.client_sessions_max = cluster.limits.client_sessions_max;
  config.body_timeout = Micros{std::int64_t{cluster.timing.body_timeout_ms} * 1'000};
  config.expired_reply =
      service.adapter == "http" ? http_session_expired_reply() : SharedBytes::copy(kKvSessionExpired);
  config.checkpoints = {cluster.limits.checkpoint_batches, cluster.limits.checkpoint_requests,
                        cluster.limits.checkpoint_bytes};
  config.genuine = [&cluster](const agreement::StableCertificate& certificate) {
    return agreement::genuine(cluster, certificate);
  };
  return config;
}

HttpAdapterConfig http_config(const crypto::ClusterFile& cluster, const AgentOptions& options) {
  const crypto::ServiceEntry& service = cluster.services[options.service.value];
  HttpAdapterConfig config;
  config.name = service.name;
  config.command = service.command;
  config.initial_state = service.initial_state;
  config.work_dir = options.work_dir;
  config.http = service.http;
  config.reply_bytes_max = cluster.limits.op_bytes_max;
  config.warn = [](const std::string& text) { spdlog::warn("{}", text); };
  return config;
}

SlotStore::Options store_options(const crypto::ClusterFile& cluster, const AgentOptions& options) {
  SlotStore::Options out;
  out.store.path = options.store_dir;
  out.store.snapshots_max = kSnapshotsMax;
  out.fetcher.self = out.source.self = options.slot;
  out.fetcher.f = cluster.f;
  out.fetcher.g = cluster.services[options.service.value].g;
  out.source.nodes = cluster.n();
  return out;
}

}  // namespace zz::execution

#include "apps/caller.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "apps/local_cluster.hpp"

namespace zz::apps {
namespace {

constexpr std::uint32_t kUsualClient = 2;

Result<crypto::ServiceEntry> find_service(const crypto::ClusterFile& cluster, const std::string& dir,
                                          const std::string& name) {
  for (const crypto::ServiceEntry& service : cluster.services) {
    if (name.empty() || service.name == name) return service;
  }
  std::string names;
  for (const crypto::ServiceEntry& service : cluster.services) names += (names.empty() ? "" : ", ") + service.name;
  return Error{fmt::format("{} has no service \"{}\" (it has: {})", cluster_path(dir), name, names)};
}

}  // namespace

Result<Caller> load_caller(const std::string& dir, std::optional<std::uint32_t> client, const std::string& service) {
  if (auto ready = crypto::init(); !ready) return Error{ready.error()};
  auto cluster = crypto::load_cluster(cluster_path(dir));
  if (!cluster) return Error{cluster.error()};
  auto wanted = find_service(*cluster, dir, service);
  if (!wanted) return Error{wanted.error()};
  const ClientId id{client.value_or(kUsualClient)};
  const auto entry = std::find_if(cluster->clients.begin(), cluster->clients.end(),
                                  [id](const crypto::ClientEntry& known) { return known.id == id; });
  if (entry == cluster->clients.end()) {
    return Error{fmt::format("{} has no client {}; choose another with --client", cluster_path(dir), id.value)};
  }
  const std::string path = fmt::format("{}/keys/client-{}.key", dir, id.value);
  auto key = crypto::load_secret_key(path);
  if (!key) return Error{key.error()};
  if (key->public_key() != entry->key) {
    return Error{fmt::format("{} is not the key that cluster.toml names for client {}", path, id.value)};
  }
  return Caller{std::move(*cluster), std::move(*key), id, std::move(*wanted)};
}

}  // namespace zz::apps

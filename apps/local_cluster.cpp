#include "apps/local_cluster.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <system_error>

#include "apps/free_ports.hpp"
#include "crypto/certificate.hpp"
#include "crypto/sign.hpp"

namespace zz::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kFixedClients = 2;  // operator and gateway
constexpr const char* kSubdirectories[] = {"keys", "run", "log", "work", "data"};

Result<void> write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) return Error{fmt::format("{}: cannot write: {}", path, std::strerror(errno))};
  return {};
}

// Removes what was made when the making is not finished.
class Undo {
 public:
  explicit Undo(std::string dir) : dir_(std::move(dir)) {
    std::error_code ignored;
    dir_existed_ = fs::exists(dir_, ignored);
  }
  ~Undo() {
    if (done_) return;
    std::error_code ignored;
    for (const char* name : kSubdirectories) fs::remove_all(fs::path(dir_) / name, ignored);
    for (const char* name : {"ca.key", "ca.crt", "cluster.toml"}) fs::remove(fs::path(dir_) / name, ignored);
    if (!dir_existed_) fs::remove(dir_, ignored);
  }
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;
  void forget() { done_ = true; }

 private:
  std::string dir_;
  bool dir_existed_ = false;
  bool done_ = false;
};

// Writes the keys and certificates of all parties.
class KeyMaker {
 public:
  KeyMaker(std::string dir, const crypto::ClusterId& id)
      : dir_(std::move(dir)),
        authority_name_(fmt::format("zz cluster {}", to_hex(ByteView(id.bytes).first(4)))),
        authority_(crypto::SecretKey::generate()) {}

  Result<void> make_authority() {
    return save(
        dir_ + "/ca",
        {.subject = authority_name_, .issuer = authority_name_, .key = authority_.public_key(), .authority = true},
        authority_);
  }

  Result<crypto::PublicKey> make_party(const std::string& party) {
    const crypto::SecretKey key = crypto::SecretKey::generate();
    const Result<void> saved =
        save(dir_ + "/keys/" + party,
             {.subject = party, .issuer = authority_name_, .key = key.public_key(), .authority = false}, key);
    if (!saved) return Error{saved.error()};
    return key.public_key();
  }

 private:
  Result<void> save(const std::string& stem, const crypto::CertificateRequest& request, const crypto::SecretKey& key) {
    if (auto saved = crypto::save_secret_key(stem + ".key", key); !saved) return saved;
    const auto certificate = crypto::make_certificate(request, authority_);
    if (!certificate) return Error{certificate.error()};
    const Result<std::string> pem = crypto::to_pem(**certificate);
    if (!pem) return Error{pem.error()};
    return write_file(stem + ".crt", *pem);
  }

  std::string dir_;
  std::string authority_name_;
  crypto::SecretKey authority_;
};

template <class Id>
Id id_of(std::size_t i) {
  return Id{static_cast<typename Id::rep>(i)};
}

// Fills `out` with one entry per party, made by `entry(id, key)`.
template <class Entry, class Make>
Result<void> add_parties(KeyMaker& keys, std::string_view kind, std::size_t count, std::vector<Entry>& out,
                         Make entry) {
  for (std::size_t i = 0; i < count; ++i) {
    const Result<crypto::PublicKey> key = keys.make_party(fmt::format("{}-{}", kind, i));
    if (!key) return Error{key.error()};
    out.push_back(entry(i, *key));
  }
  return {};
}

Result<void> check_options(const LocalClusterOptions& options) {
  const auto in_range = [](std::uint32_t faults) { return faults >= 1 && faults <= crypto::kFaultsMax; };
  if (!in_range(options.f))
    return Error{fmt::format("f = {} is out of range (1 to {})", options.f, crypto::kFaultsMax)};
  if (!in_range(options.g))
    return Error{fmt::format("g = {} is out of range (1 to {})", options.g, crypto::kFaultsMax)};
  if (options.clients > crypto::kClientsMax - kFixedClients) {
    return Error{
        fmt::format("{} clients are too many (at most {})", options.clients, crypto::kClientsMax - kFixedClients)};
  }
  if (!options.initial_state.empty() && !fs::is_directory(options.initial_state)) {
    return Error{fmt::format("{}: initial state is not a directory", options.initial_state)};
  }
  return {};
}

Result<void> make_directories(const std::string& dir) {
  std::error_code error;
  if (fs::exists(dir, error) && !fs::is_directory(dir, error)) return Error{fmt::format("{}: is not a directory", dir)};
  if (holds_cluster(dir)) return Error{fmt::format("{}: already holds a cluster", dir)};
  if (fs::exists(dir, error) && !fs::is_empty(dir, error)) {
    return Error{fmt::format("{}: is not empty and holds no cluster; choose a new directory", dir)};
  }
  fs::create_directories(dir, error);
  if (error) return Error{fmt::format("{}: cannot make directory: {}", dir, error.message())};
  for (const char* name : kSubdirectories) {
    const std::string path = dir + "/" + name;
    if (::mkdir(path.c_str(), 0700) != 0) {
      return Error{fmt::format("{}: cannot make directory: {}", path, std::strerror(errno))};
    }
  }
  return {};
}

Result<void> choose_addresses(const LocalClusterOptions& options, crypto::ClusterFile& cluster) {
  const std::size_t count = cluster.nodes.size();
  std::vector<std::uint16_t> ports;
  if (options.base_port == 0) {
    Result<std::vector<std::uint16_t>> found = find_free_ports(count + 1);
    if (!found) return Error{found.error()};
    ports = std::move(found).value();
  } else {
    if (options.base_port + count > std::numeric_limits<std::uint16_t>::max()) {
      return Error{fmt::format("base port {} leaves no room for {} nodes", options.base_port, count)};
    }
    for (std::size_t i = 0; i <= count; ++i) ports.push_back(static_cast<std::uint16_t>(options.base_port + i));
  }
  for (std::size_t i = 0; i < count; ++i) cluster.nodes[i].address = {"127.0.0.1", ports[i]};
  if (options.adapter == "http" && options.gateway) {
    cluster.services[0].gateway = options.gateway_address;
    if (options.gateway_address.port == 0) cluster.services[0].gateway.port = ports[count];
  }
  return {};
}

crypto::ServiceEntry make_service(const LocalClusterOptions& options) {
  crypto::ServiceEntry service;
  service.name = options.service_name;
  service.g = options.g;
  service.adapter = options.adapter;
  service.command = options.command;
  if (!options.initial_state.empty()) service.initial_state = fs::canonical(options.initial_state).string();
  for (std::size_t i = 0; i < 2 * std::size_t{options.g} + 1; ++i) {
    service.slots.push_back({id_of<SlotId>(i), id_of<HostId>(i)});
  }
  service.http = options.http;
  return service;
}

std::string client_name(std::size_t i) {
  if (i == 0) return "operator";
  return i == 1 ? "gateway" : fmt::format("client-{}", i);
}

Result<void> fill(const LocalClusterOptions& options, crypto::ClusterFile& cluster) {
  cluster.name = options.name;
  cluster.f = options.f;
  cluster.local = true;
  cluster.allow_faults = options.allow_faults;
  cluster.durability = options.durability;
  cluster.limits = options.limits;
  cluster.limits.sessions_max =
      std::max(cluster.limits.sessions_max, (kFixedClients + options.clients) * cluster.limits.client_sessions_max);
  cluster.timing = options.timing;
  // Whoever injects faults does so again and again.
  if (options.allow_faults) cluster.timing.quarantine_ms = 0;
  randombytes_buf(cluster.id.bytes.data(), cluster.id.bytes.size());
  KeyMaker keys(options.dir, cluster.id);
  if (auto made = keys.make_authority(); !made) return made;
  const std::size_t hosts = std::max(cluster.n(), 2 * options.g + 1);
  if (auto made = add_parties(keys, "node", cluster.n(), cluster.nodes,
                              [](std::size_t i, const crypto::PublicKey& key) {
                                return crypto::NodeEntry{id_of<NodeId>(i), id_of<HostId>(i), {}, key};
                              });
      !made) {
    return made;
  }
  if (auto made = add_parties(keys, "host", hosts, cluster.hosts,
                              [](std::size_t i, const crypto::PublicKey& key) {
                                return crypto::HostEntry{id_of<HostId>(i), key};
                              });
      !made) {
    return made;
  }
  if (auto made = add_parties(keys, "client", kFixedClients + options.clients, cluster.clients,
                              [](std::size_t i, const crypto::PublicKey& key) {
                                return crypto::ClientEntry{id_of<ClientId>(i), client_name(i), key, i == 0};
                              });
      !made) {
    return made;
  }
  cluster.services.push_back(make_service(options));
  return choose_addresses(options, cluster);
}

// The host daemons' control sockets are the longest paths that the kernel limits.
Result<void> check_socket_room(const std::string& dir) {
  std::error_code error;
  const std::string longest = fs::absolute(dir, error).string() + "/run/host-00.sock";
  if (longest.size() >= sizeof(sockaddr_un::sun_path)) {
    return Error{fmt::format("{}: path is too long for the sockets in it; choose a shorter one", dir)};
  }
  return {};
}

}  // namespace

std::string node_data_path(const std::string& dir, NodeId node) {
  return fmt::format("{}/data/node-{}", dir, node.value);
}

std::string cluster_path(const std::string& dir) { return dir + "/cluster.toml"; }

bool holds_cluster(const std::string& dir) {
  std::error_code error;
  return fs::exists(cluster_path(dir), error);
}

Result<crypto::ClusterFile> make_local_cluster(const LocalClusterOptions& options) {
  if (auto ready = crypto::init(); !ready) return Error{ready.error()};
  if (auto good = check_options(options); !good) return Error{good.error()};
  if (auto good = check_socket_room(options.dir); !good) return Error{good.error()};
  std::error_code error;
  if (fs::exists(options.dir, error) && (!fs::is_directory(options.dir, error) || !fs::is_empty(options.dir, error))) {
    return Error{make_directories(options.dir).error()};
  }
  Undo undo(options.dir);
  if (auto made = make_directories(options.dir); !made) return Error{made.error()};
  crypto::ClusterFile cluster;
  if (auto filled = fill(options, cluster); !filled) return Error{filled.error()};
  const std::string path = cluster_path(options.dir);
  // Last, so that a directory with a cluster.toml is a whole one; read back, so that what we write is what all accept.
  const std::string text = crypto::render_cluster(cluster);
  Result<crypto::ClusterFile> read_back = crypto::parse_cluster(text, path);
  if (!read_back) return read_back;
  if (auto written = write_file(path, text); !written) return Error{written.error()};
  undo.forget();
  return read_back;
}

}  // namespace zz::apps

#include "apps/demo_workload.hpp"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "apps/webdav_client.hpp"
#include "base/assert.hpp"

namespace zz::apps {

namespace {

constexpr std::uint64_t kFileNames = 12;       // per collection
constexpr std::uint64_t kCollectionNames = 3;  // per subtree
constexpr std::uint64_t kContentBytesMax = 4'096;

// Two kinds of content type: text, which the cluster may have to make comparable, and plain bytes.
std::string file_path(const std::string& collection, std::uint64_t number) {
  return fmt::format("{}file-{}.{}", collection, number, number % 2 == 0 ? "txt" : "dat");
}

}  // namespace

// ---- DavScript ------------------------------------------------------------------------------------------

DavScript::DavScript(std::string name, std::uint64_t seed) : name_(std::move(name)), prng_(seed) {}

std::string DavScript::root() const { return fmt::format("/{}-{}/", name_, generation_); }

void DavScript::start_over() {
  ++generation_;
  rooted_ = false;
}

// The root or one of the few collections in it; the latter may be missing, which is part of the mix.
std::string DavScript::any_collection() {
  const std::uint64_t pick = prng_.below(kCollectionNames + 2);
  if (pick >= kCollectionNames) return root();
  std::string path = fmt::format("{}dir-{}/", root(), pick);
  return model_.is_collection(path) ? path : root();
}

std::string DavScript::any_file() { return file_path(any_collection(), prng_.below(kFileNames)); }

// Never the same twice, so that a stale or foreign body cannot pass for the right one.
std::string DavScript::fresh_content() {
  std::string content = fmt::format("{} generation {} content {}\n", name_, generation_, ++contents_);
  const std::uint64_t size = prng_.below(kContentBytesMax);
  while (content.size() < size) content += static_cast<char>('a' + prng_.below(26));
  return content;
}

DavRequest DavScript::make_collection() {
  return {.method = DavMethod::kMkcol, .path = fmt::format("{}dir-{}/", root(), prng_.below(kCollectionNames))};
}

DavRequest DavScript::transfer(DavMethod method) {
  DavRequest request{.method = method, .path = any_file(), .destination = any_file(), .overwrite = prng_.below(4) != 0};
  if (!model_.covers(request)) return {.method = DavMethod::kGet, .path = request.path};
  return request;
}

DavRequest DavScript::next() {
  if (!rooted_) {
    rooted_ = true;
    return {.method = DavMethod::kMkcol, .path = root()};
  }
  const std::uint64_t dice = prng_.below(100);
  if (dice < 36) {
    return {.method = DavMethod::kPut, .path = any_file(), .body = fresh_content(), .chunked = prng_.below(4) == 0};
  }
  if (dice < 64) return {.method = DavMethod::kGet, .path = any_file()};
  if (dice < 74) return {.method = DavMethod::kDelete, .path = any_file()};
  if (dice < 86) {
    return {.method = DavMethod::kPropfind, .path = any_collection(), .depth = static_cast<int>(prng_.below(2))};
  }
  if (dice < 90) return {.method = DavMethod::kHead, .path = any_file()};
  if (dice < 94) return make_collection();
  if (dice < 97) return transfer(DavMethod::kCopy);
  if (dice < 99) return transfer(DavMethod::kMove);
  const std::string collection = any_collection();
  if (collection == root()) return {.method = DavMethod::kGet, .path = collection};
  return {.method = DavMethod::kDelete, .path = collection};
}

std::vector<DavRequest> DavScript::read_back() const {
  std::vector<DavRequest> requests;
  if (!rooted_) return requests;
  std::vector<std::string> collections = {root()};
  for (std::uint64_t i = 0; i < kCollectionNames; ++i) collections.push_back(fmt::format("{}dir-{}/", root(), i));
  for (const std::string& collection : collections) {
    requests.push_back({.method = DavMethod::kPropfind, .path = collection, .depth = 1});
    if (!model_.is_collection(collection)) continue;
    for (std::uint64_t i = 0; i < kFileNames; ++i) {
      requests.push_back({.method = DavMethod::kGet, .path = file_path(collection, i)});
    }
  }
  return requests;
}

// ---- DavUsers -------------------------------------------------------------------------------------------

DavUsers::DavUsers(std::string base_url, std::size_t users, std::uint64_t seed) : base_url_(std::move(base_url)) {
  ZZ_ASSERT(init_webdav_clients());
  for (std::size_t i = 0; i < users; ++i) {
    threads_.emplace_back([this, i, seed] { run(i, seed + i); });
  }
}

DavUsers::~DavUsers() { halt(); }

void DavUsers::halt() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  wake_.notify_all();
}

void DavUsers::grant(std::uint64_t requests) {
  const std::lock_guard lock(mutex_);
  granted_ += requests;
  wake_.notify_all();
}

void DavUsers::grant_read_back() {
  const std::lock_guard lock(mutex_);
  ZZ_ASSERT(!read_back_);
  read_back_ = true;
  reading_back_ = threads_.size();
  wake_.notify_all();
}

DavCounts DavUsers::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

bool DavUsers::idle() const {
  const std::lock_guard lock(mutex_);
  return granted_ == 0 && busy_ == 0 && reading_back_ == 0;
}

std::vector<std::string> DavUsers::complaints() const {
  const std::lock_guard lock(mutex_);
  return complaints_;
}

DavUsers::Turn DavUsers::next_turn(bool& read_back_done) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return stopping_ || granted_ > 0 || (read_back_ && !read_back_done); });
  if (stopping_) return Turn::kEnd;
  ++busy_;
  if (granted_ > 0) {
    --granted_;
    return Turn::kRequest;
  }
  read_back_done = true;
  --reading_back_;
  return Turn::kReadBack;
}

void DavUsers::finish_turn() {
  const std::lock_guard lock(mutex_);
  --busy_;
}

bool DavUsers::count(const DavRequest& request, const Result<DavReply>& reply, DavScript& script) {
  const DavExpectation expected = script.expect(request);
  const std::string what = fmt::format("{} {}", to_string(request.method), request.path);
  std::string complaint;
  // The gateway's own words are no reply of the service; what became of the request is not known then.
  const bool unanswered = !reply || (reply->status >= 502 && reply->status <= 504);
  if (!reply) {
    complaint = reply.error();
  } else if (unanswered) {
    complaint = fmt::format("{}: status {}, {}", what, reply->status, reply->body.substr(0, 200));
  } else if (const auto difference = mismatch(expected, *reply)) {
    complaint = fmt::format("{}: {}", what, *difference);
  }
  const bool accepted = complaint.empty();
  if (!accepted) script.start_over();
  const std::lock_guard lock(mutex_);
  ++counts_.requests;
  ++(unanswered ? counts_.unanswered : accepted ? counts_.accepted : counts_.wrong);
  if (!accepted && complaints_.size() < kComplaintsMax) complaints_.push_back(std::move(complaint));
  return accepted;
}

void DavUsers::run(std::size_t index, std::uint64_t seed) {
  WebdavClient client(base_url_);
  DavScript script(fmt::format("user-{}", index), seed);
  bool read_back_done = false;
  for (;;) {
    const Turn turn = next_turn(read_back_done);
    if (turn == Turn::kEnd) return;
    const long before = client.connections();
    if (turn == Turn::kRequest) {
      const DavRequest request = script.next();
      count(request, client.perform(request), script);
    } else {
      for (const DavRequest& request : script.read_back()) {
        if (!count(request, client.perform(request), script)) break;  // the rest is in doubt now
      }
    }
    connections_ += client.connections() - before;
    finish_turn();
  }
}

}  // namespace zz::apps

#include "apps/dav_load.hpp"

#include <fmt/format.h>

#include <utility>

#include "apps/webdav_client.hpp"
#include "base/prng.hpp"

namespace zz::apps {

DavLoad::DavLoad(Options options) : options_(std::move(options)), contents_(kUsers) {
  for (std::uint32_t user = 0; user < kUsers; ++user) contents_[user].resize(files_of(user));
  for (std::uint32_t user = 0; user < kUsers; ++user) users_.emplace_back([this, user] { run(user); });
}

DavLoad::~DavLoad() { stop(); }

std::uint64_t DavLoad::filled() const {
  const std::lock_guard lock(mutex_);
  return filled_;
}
void DavLoad::start() {
  const std::lock_guard lock(mutex_);
  if (mode_ == Mode::kFilling) mode_ = Mode::kRunning;
  changed_.notify_all();
}
void DavLoad::stop() {
  const std::lock_guard lock(mutex_);
  mode_ = Mode::kStopped;
  changed_.notify_all();
}
bool DavLoad::idle() const {
  const std::lock_guard lock(mutex_);
  return busy_ == 0;
}
void DavLoad::watch_next() {
  const std::lock_guard lock(mutex_);
  watch_next_ = true;
  answered_at_.reset();
}
std::optional<DavLoad::Clock::time_point> DavLoad::answered_at() const {
  const std::lock_guard lock(mutex_);
  return answered_at_;
}
std::uint64_t DavLoad::answered() const {
  const std::lock_guard lock(mutex_);
  return answered_;
}
std::string DavLoad::first_error() const {
  const std::lock_guard lock(mutex_);
  return first_error_;
}

// ---- a user ------------------------------------------------------------------------------------------------------

std::uint32_t DavLoad::files_of(std::uint32_t user) const { return (options_.files + kUsers - 1 - user) / kUsers; }

std::string DavLoad::text_of(const Turn& turn) const {
  const Content& content = contents_[turn.user][turn.file];
  const std::string line = fmt::format("user {} file {:08} version {:08}\n", turn.user, content.file, content.version);
  std::string out;
  out.reserve(options_.file_bytes + line.size());
  while (out.size() < options_.file_bytes) out += line;
  out.resize(options_.file_bytes);
  return out;
}

DavRequest DavLoad::request_of(const Turn& turn) const {
  const auto path_of = [&turn](std::uint32_t file) {
    return fmt::format("/user-{}/{:03}/{:06}", turn.user, file / kFilesPerDirectory, file);
  };
  DavRequest request;
  request.method = DavMethod::kGet;
  request.path = path_of(turn.file);
  if (turn.what == Turn::What::kPut) {
    request.method = DavMethod::kPut;
    request.body = text_of(turn);
  } else if (turn.what == Turn::What::kCopy) {
    request.method = DavMethod::kCopy;
    request.destination = std::exchange(request.path, path_of(turn.file - turn.file % kFilesPerDirectory));
  }
  return request;
}

std::optional<DavLoad::Turn> DavLoad::take(std::uint32_t user, std::uint64_t turn, Clock::time_point& due) {
  Prng prng(turn * kUsers + user);
  const std::uint32_t mine = files_of(user);
  std::unique_lock lock(mutex_);
  if (turn >= mine) {
    changed_.wait(lock, [this] { return mode_ != Mode::kFilling; });
    const std::chrono::duration<double> period(static_cast<double>(kUsers) / options_.rate);
    due = std::max(due + std::chrono::duration_cast<Clock::duration>(period), Clock::now());
    changed_.wait_until(lock, due, [this] { return mode_ == Mode::kStopped; });
  }
  if (mode_ == Mode::kStopped) return std::nullopt;
  ++busy_;
  Turn out;
  out.user = user;
  out.file = static_cast<std::uint32_t>(turn < mine ? turn : prng.below(mine));
  if (turn < mine) {
    out.what = turn % kFilesPerDirectory == 0 ? Turn::What::kPut : Turn::What::kCopy;
  } else if (turn % (kReadsPerWrite + 1) == 0) {
    out.what = Turn::What::kPut;
  }
  out.watched = std::exchange(watch_next_, false);
  return out;
}

void DavLoad::run(std::uint32_t user) {
  WebdavClient client(options_.url);
  Clock::time_point due;
  if (files_of(user) == 0) return;
  for (std::uint64_t number = 0; auto turn = take(user, number, due); ++number) {
    std::vector<Content>& files = contents_[user];
    Content& content = files[turn->file];
    DavExpectation expected;
    expected.status = turn->what == Turn::What::kPut && content.version == 0 ? 201 : 204;
    if (turn->what == Turn::What::kPut) {
      content = {turn->file, content.version + 1};
    } else if (turn->what == Turn::What::kCopy) {
      content = files[turn->file - turn->file % kFilesPerDirectory];
    } else {
      expected.status = 200;
      expected.body = DavExpectation::Body::kExact;
      expected.exact = text_of(*turn);
    }
    const auto reply = client.perform(request_of(*turn));
    count(*turn, number < files.size(), reply ? mismatch(expected, *reply) : std::optional(reply.error()));
  }
}

void DavLoad::count(const Turn& turn, bool fills, const std::optional<std::string>& wrong) {
  const std::lock_guard lock(mutex_);
  --busy_;
  if (wrong) {
    if (first_error_.empty() && mode_ != Mode::kStopped) first_error_ = *wrong;
    return;
  }
  filled_ += fills ? 1 : 0;
  ++answered_;
  if (turn.watched) answered_at_ = Clock::now();
}

}  // namespace zz::apps

#include "execution/slot_state.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace zz::execution {

namespace {

constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kHeadBytes = 4 + 8 + 32 + 8 + 4 * 8 + 3 * 4 + 8;
constexpr std::uint64_t kNumberMax = std::uint64_t{1} << 62;  // of a batch, and of microseconds
constexpr std::size_t kWantsAtOnce = 1'024;
constexpr std::size_t kWantsMax = 4'096;  // of one Loading; the others are named when some of these came
constexpr std::size_t kVisitsAtOnce = 65'536;
constexpr std::uint64_t kRingPagesGuessed = 128;

struct HeadRecord {
  SlotHead head;
  SessionTable::Counts counts;
};

// The limits are in it because they decide what the rest looks like.
Bytes encode(const HeadRecord& record, const SessionLimits& limits) {
  layout::Writer out(kHeadBytes);
  out.u32(kFormat);
  out.u64(record.head.n.value);
  out.digest(record.head.history);
  out.u64(static_cast<std::uint64_t>(record.head.time.value));
  out.u64(record.counts.records);
  out.u64(record.counts.sessions);
  out.u64(record.counts.graves);
  out.u64(record.counts.body_end);
  out.u32(limits.client_window);
  out.u32(limits.sessions_max);
  out.u32(limits.client_sessions_max);
  out.u64(limits.reply_bytes_max);
  return std::move(out.bytes());
}

// Nothing: `wrong` says why.
std::optional<HeadRecord> decode(ByteView bytes, const SessionLimits& limits, std::string& wrong) {
  layout::Reader in(bytes);
  HeadRecord out;
  const std::uint32_t format = in.u32();
  out.head.n = Seq{in.u64()};
  out.head.history = in.digest();
  out.head.time = Micros{static_cast<std::int64_t>(in.u64())};
  out.counts.records = in.u64();
  out.counts.sessions = in.u64();
  out.counts.graves = in.u64();
  out.counts.body_end = in.u64();
  SessionLimits its;
  its.client_window = in.u32();
  its.sessions_max = in.u32();
  its.client_sessions_max = in.u32();
  its.reply_bytes_max = in.u64();
  if (format != kFormat) {
    wrong = "the head has another format";
  } else if (!in.done()) {
    wrong = "the head has a wrong length";
  } else if (its != limits) {
    wrong = "it was made with other limits of sessions";
  } else if (out.head.n.value == 0 || out.head.n.value > kNumberMax || out.head.time.value < 0 ||
             static_cast<std::uint64_t>(out.head.time.value) > kNumberMax) {
    wrong = "the head has an impossible number or time";
  }
  if (!wrong.empty()) return std::nullopt;
  return out;
}

}  // namespace

SlotState::SlotState(const Options& options, state::ObjectStore& store)
    : options_(options),
      store_(store),
      sessions_(std::make_unique<SessionTable>(options.sessions, store)),
      slots_(options.service, options.f, options.g) {}

bool SlotState::is_new() const { return store_.next(state::ObjectId{kOwnFirst}).status == state::Status::kNone; }

void SlotState::save(const SlotHead& head) {
  slots_.forget_through(head.n);
  const HeadRecord record{head, sessions_->save()};
  const state::Outcome table = store_.write(layout::kSlotTable, slots_.encode());
  const state::Outcome out = store_.write(layout::kHead, encode(record, options_.sessions));
  ZZ_ASSERT(table.status == state::Status::kDone && out.status == state::Status::kDone);
}

void SlotState::begin_load() {
  sessions_ = std::make_unique<SessionTable>(options_.sessions, store_);
  slots_ = agreement::SlotTable(options_.service, options_.f, options_.g);
  cursor_ = state::ObjectId{kOwnFirst};
}

SlotState::Loading SlotState::load() {
  Loading out;
  if (find_missing(out.wants)) return decode();
  return out;
}

// Nothing is known yet: with the root comes what any slot has, and what it has of few sessions. What does not exist
// costs hardly more than the question.
void SlotState::guess(const state::Want& root, std::vector<state::Want>& wants) {
  const auto add = [&](state::ObjectId id) {
    wants.push_back(root);
    wants.back().toward = id;
  };
  for (const state::ObjectId id : {layout::kHead, layout::kSlotTable, layout::kBodyTail, layout::kGraveTail}) add(id);
  add(layout::index_page(0));
  for (std::uint64_t page = 0; page < kRingPagesGuessed; ++page) add(layout::ring_page(page));
}

// False: something is missing.
bool SlotState::find_missing(std::vector<state::Want>& wants) {
  bool all_there = true;
  std::optional<state::ObjectId> at = cursor_;
  while (at) {
    const state::ObjectStore::Missing missing = store_.missing(*at, kWantsAtOnce, kVisitsAtOnce);
    for (const state::Want& want : missing.wants) {
      if (want.kind == state::PartKind::kRoot) {
        guess(want, wants);
        return false;
      }
      if (want.kind == state::PartKind::kObject && want.place.prefix >= layout::kFirstBody.value) continue;
      if (std::exchange(all_there, false)) cursor_ = state::ObjectId{std::max(kOwnFirst, want.place.prefix)};
      wants.push_back(want);
      if (wants.size() == kWantsMax) return false;
    }
    at = missing.next;
  }
  return all_there;
}

SlotState::Loading SlotState::decode() {
  Loading out;
  const state::ReadOutcome head = store_.read(layout::kHead);
  const state::ReadOutcome table = store_.read(layout::kSlotTable);
  if (head.status != state::Status::kDone || table.status != state::Status::kDone) {
    out.damage = "the state holds nothing of a slot";
    return out;
  }
  const auto record = execution::decode(head.bytes.view(), options_.sessions, out.damage);
  if (!record) return out;
  auto slots = agreement::SlotTable::decode(options_.service, options_.f, options_.g, table.bytes.view());
  if (!slots) {
    out.damage = "the slot table is malformed";
    return out;
  }
  slots_ = std::move(*slots);
  out.damage = sessions_->load(record->counts);
  if (out.damage.empty()) out.head = record->head;
  return out;
}

state::Totals SlotState::reserve(const SessionLimits& limits) {
  state::Totals out = SessionTable::reserve(limits);
  out.objects += 2;
  out.bytes += kHeadBytes + agreement::kTableBytesMax;
  return out;
}

}  // namespace zz::execution

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include <fmt/format.h>

#include "../unit/store/crash_fs.hpp"
#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "extent/extent_set.hpp"
#include "proto/batch.hpp"
#include "proto/hashing.hpp"
#include "store/source_store.hpp"

/// An agent that sends whatever it likes in well-formed frames to one source: batches, epochs, points, hash questions, new
/// sessions, and a server that is killed in between. The input is a history. What the server takes must end in staging exactly
/// as the rules of docs/protocol.md say (a small model of them is kept here), what it refuses leaves no trace, and what was
/// durable is durable after a kill.
using namespace blkferry;
using namespace blkferry::store;
using namespace blkferry::proto;
using Bytes = std::vector<std::byte>;

namespace {

class FakeClock final : public Clock {
public:
    std::uint64_t monotonic_ns() const noexcept override { return now += 50'000'000; }
    std::uint64_t realtime_ns() const noexcept override { return 1'700'000'000'000'000'000ULL + now; }
    mutable std::uint64_t now = 0;
};

constexpr std::array<std::uint64_t, 2> sizes{2048, 1001};
constexpr std::array<std::uint16_t, 2> slots{0, 3};

Uuid uuid(std::uint8_t n) {
    Uuid u{};
    u.bytes.fill(n);
    u.bytes[6] = 0x40;
    u.bytes[8] = 0x80;
    return u;
}

/// One disk as staging must hold it.
struct Image {
    Bytes content;
    std::vector<bool> newer;  ///< captured since the newest epoch began
    explicit Image(std::uint64_t sectors) : content(sectors * sector_bytes), newer(sectors) {}

    void apply(const ExtentEntry& e, std::byte fill) {
        if (e.kind == ExtentKind::resync_same)
            return;
        for (std::uint64_t s = e.extent.sector; s < e.extent.end(); ++s) {
            if (is_resync(e.kind) && newer[s])
                continue;
            if (!is_resync(e.kind))
                newer[s] = true;
            std::memset(content.data() + s * sector_bytes, has_payload(e.kind) ? std::to_integer<int>(fill) : 0, sector_bytes);
        }
    }
};

class History {
public:
    explicit History(std::span<const std::byte> input) : in_(input), engine_(make_copy_engine()) {
        options_.journal.segment_bytes = segment_bytes_min;
        options_.journal_keep_bytes = 0;
        options_.applier.chunk_bytes = chunk_bytes_unit;
        options_.applier.checkpoint_bytes = 50'000;
        options_.applier.open_files_max = 2;
        options_.applier.map_pages_max = 2;
        options_.applier.direct_bytes_min = 4096;
        for (const std::uint64_t s : sizes)
            images_.emplace_back(s);
        hello_.agent_version = "fuzz";
        hello_.source = "web1";
        hello_.source_id = uuid(1);
        hello_.load_id = uuid(2);
        for (std::size_t i = 0; i < slots.size(); ++i)
            hello_.disks.push_back({.slot = slots[i], .disk_id = uuid(static_cast<std::uint8_t>(10 + i)), .name = "vda",
                                    .identity = "s", .sectors = sizes[i], .attach_id = uuid(20)});
    }
    void run();

private:
    struct Step {
        bool epoch = false;
        std::size_t disk = 0;
        ExtentEntry entry;
        std::byte fill{};
    };
    void open();
    void connect(std::uint8_t how);
    void batch_begin();
    void extents();
    void epoch(bool begin);
    void batch_end();
    void raw();
    void ask();
    void commit_and_apply();
    void kill();
    void finish();
    bool send(FrameType type, const Bytes& body);
    template <class M>
    bool send(FrameType type, const M& m) {
        Bytes body;
        encode(m, body);
        return send(type, body);
    }

    ByteReader in_;
    test::CrashFs fs_;
    FakeClock clock_;
    std::unique_ptr<SnapshotEngine> engine_;
    SourceOptions options_;
    std::unique_ptr<SourceStore> store_;
    Hello hello_;
    bool connected_ = false;
    std::uint64_t batch_ = 0, mark_ = 0;   ///< last complete batch
    std::uint64_t begun_mark_ = 0;
    std::uint32_t index_ = 0;
    std::uint32_t count_ = 0;
    std::uint64_t payload_ = 0;
    std::map<std::uint16_t, ExtentSet> set_;
    std::vector<Step> steps_;                ///< of the open batch, as far as it was taken
    std::vector<Image> images_;
    struct Done { std::uint64_t batch, mark; std::vector<Step> steps; };
    std::vector<Done> undurable_;            ///< complete batches that a kill may take
    std::uint64_t durable_ = 0, durable_mark_ = 0;
};

void History::open() {
    auto s = SourceStore::open({fs_, clock_, *engine_, uuid(9), nullptr, nullptr}, "/store/sources/web1", "web1", options_);
    BLKFERRY_ASSERT(s.has_value());
    store_ = std::move(*s);
    BLKFERRY_ASSERT(!store_->damage());
}

void History::connect(std::uint8_t how) {
    Hello h = hello_;
    if ((how & 1U) != 0)
        h.load_id = uuid(static_cast<std::uint8_t>(how & 6U));
    if ((how & 8U) != 0)
        h.disks[how >> 7].attach_id = uuid(static_cast<std::uint8_t>(how & 0x30U));
    if ((how & 0x40U) != 0)
        h.disks[0].slot = 3;  // a slot never changes its disk, and two never share one
    steps_.clear();
    const auto w = store_->connect(h);
    connected_ = w.has_value();
    if (!connected_)
        return;
    hello_ = h;
    // A session is journalled durably, and all complete batches before it with it.
    for (Done& d : undurable_) {
        durable_ = d.batch;
        durable_mark_ = d.mark;
    }
    undurable_.clear();
    BLKFERRY_ASSERT(w->durable_batch == batch_ && w->durable_mark == mark_);
}

bool History::send(FrameType type, const Bytes& body) {
    if (!connected_)
        return false;
    Bytes wire;
    encode_frame(type, batch_ + 1, index_, body, nullptr, wire);
    FrameReader reader;
    reader.feed(wire);
    FrameReader::View view;
    const auto status = reader.next(view);
    if (!status) {  // no type that there is
        connected_ = false;
        return false;
    }
    BLKFERRY_ASSERT(*status == FrameReader::Status::frame);
    const auto step = store_->take(view);
    if (!step) {
        connected_ = false;
        return false;
    }
    ++index_;
    if (step->batch_end) {
        ++batch_;
        mark_ = begun_mark_;
        for (const Step& s : steps_) {
            if (s.epoch)
                std::fill(images_[s.disk].newer.begin(), images_[s.disk].newer.end(), false);
            else
                images_[s.disk].apply(s.entry, s.fill);
        }
        undurable_.push_back({batch_, mark_, std::move(steps_)});
        steps_.clear();
    }
    return true;
}

void History::batch_begin() {
    index_ = 0;
    count_ = 0;
    payload_ = 0;
    set_.clear();
    begun_mark_ = mark_ + in_.get<std::uint8_t>() % 4;
    send(FrameType::batch_begin, BatchBegin{mark_, begun_mark_, 1});
}

void History::extents() {
    std::vector<ExtentEntry> entries;
    std::vector<Step> steps;
    Bytes payload;
    for (unsigned n = 1 + in_.get<std::uint8_t>() % 4; n > 0; --n) {
        const auto kind = in_.get<std::uint8_t>();
        const std::size_t disk = (kind >> 3) % slots.size();
        ExtentEntry e{slots[disk], static_cast<ExtentKind>(1 + kind % 6),
                      {in_.get<std::uint16_t>() % (sizes[disk] + 8), 1U + in_.get<std::uint8_t>() % 64}};
        const auto fill = static_cast<std::byte>(in_.get<std::uint8_t>());
        payload.resize(payload.size() + e.payload_bytes(), fill);
        entries.push_back(e);
        steps.push_back({false, disk, e, fill});
    }
    Bytes body;
    encode_extents_head(entries, body);
    body.insert(body.end(), payload.begin(), payload.end());
    if (!send(FrameType::extents, body))
        return;
    count_ += static_cast<std::uint32_t>(entries.size());
    payload_ += payload.size();
    for (const ExtentEntry& e : entries)
        if (!is_resync(e.kind))
            set_[e.slot].insert(e.extent);
    steps_.insert(steps_.end(), steps.begin(), steps.end());
}

void History::epoch(bool begin) {
    const auto how = in_.get<std::uint8_t>();
    const std::size_t disk = how % slots.size();
    const std::uint64_t seq0 = mark_ - std::min<std::uint64_t>(mark_, (how >> 1) % 4) + (how >> 7);
    ExtentSet cover;
    cover.insert({0, in_.get<std::uint16_t>() % (sizes[disk] + 2)});
    SetDigest digest;
    digest.add(0, cover);
    if (!begin)
        send(FrameType::epoch_end, EpochEnd{slots[disk], seq0, cover.sectors(), digest.value()});
    else if (send(FrameType::epoch_begin, EpochBegin{slots[disk], static_cast<EpochKind>(1 + (how >> 4) % 3), 12, seq0,
                                                     cover.sectors(), digest.value()}))
        steps_.push_back({true, disk, {}, {}});
}

void History::batch_end() {
    SetDigest digest;
    std::uint64_t sectors = 0;
    for (const auto& [slot, set] : set_) {
        digest.add(slot, set);
        sectors += set.sectors();
    }
    send(FrameType::batch_end, BatchEnd{count_, in_.get<std::uint8_t>() % 2 == 0, payload_, sectors, digest.value()});
}

void History::raw() {
    const auto type = static_cast<FrameType>(in_.get<std::uint8_t>());
    const auto body = in_.bytes(in_.get<std::uint8_t>());
    index_ += in_.get<std::uint8_t>() % 8 == 0 ? 1U : 0U;
    // What such a frame changes is known only if it is refused or carries no data.
    if (type == FrameType::extents || type == FrameType::epoch_begin || type == FrameType::batch_begin)
        return;
    send(type, Bytes(body.begin(), body.end()));
}

/// Compares all of staging with the model, by the question an agent would ask; and asks nonsense.
void History::ask() {
    if (store_->applied() != store_->durable().position || !undurable_.empty())
        return;
    for (std::size_t i = 0; i < slots.size(); ++i) {
        const Image& image = images_[i];
        HashAsk q{1, slots[i], 64U << 10, 0, {}};
        for (std::size_t at = 0; at < image.content.size(); at += q.block_bytes)
            q.hashes.push_back(sha256(std::span(image.content).subspan(at).first(std::min<std::size_t>(q.block_bytes, image.content.size() - at))));
        if (const auto r = store_->compare(q))
            BLKFERRY_ASSERT(std::ranges::none_of(r->differs, [](bool d) { return d; }));
    }
    HashAsk odd{2, in_.get<std::uint16_t>(), 4096U << in_.get<std::uint8_t>() % 9, in_.get<std::uint32_t>(), {}};
    odd.hashes.resize(1 + in_.get<std::uint8_t>() % 32);
    Bytes body;
    encode(odd, body);
    if (const auto q = decode_hash_ask(body))
        if (const auto r = store_->compare(*q))
            BLKFERRY_ASSERT(r->differs.size() == q->hashes.size());
}

void History::commit_and_apply() {
    const auto d = store_->commit();
    BLKFERRY_ASSERT(d.has_value());
    BLKFERRY_ASSERT(d->batch == batch_ && d->mark == mark_);
    durable_ = batch_;
    durable_mark_ = mark_;
    undurable_.clear();
    for (int i = 0; i < 1000; ++i) {
        const auto r = store_->apply_some(1U << 20);
        BLKFERRY_ASSERT(r.has_value());
        if (r->idle)
            return;
    }
    BLKFERRY_ASSERT(false);
}

void History::kill() {
    store_.reset();
    fs_.process_kill();
    open();
    connected_ = false;
    const Durable d = store_->durable();
    BLKFERRY_ASSERT(d.batch >= durable_ && d.batch <= batch_);
    // What was on its way may have reached the files; if it did not, the model cannot take it back: the history ends.
    if (d.batch != batch_) {
        in_ = ByteReader({});
        (void)in_.get<std::uint8_t>();
        return;
    }
    BLKFERRY_ASSERT(d.mark == mark_);
    undurable_.clear();
}

void History::finish() {
    if (!in_.ok() && store_->durable().batch != batch_ && undurable_.empty())
        return;
    connect(0);
    commit_and_apply();
    ask();
    BLKFERRY_ASSERT(store_->status().applied_batch == batch_ && store_->status().applied_mark == mark_);
    std::uint64_t bytes = 0;
    for (const std::string& path : fs_.paths())
        if (const auto* c = fs_.contents(path))
            bytes += c->size();
    BLKFERRY_ASSERT(bytes < 64U << 20);
}

void History::run() {
    open();
    connect(0);
    bool lost = false;
    for (int ops = 0; ops < 150 && !in_.rest().empty() && in_.ok(); ++ops) {
        const auto op = in_.get<std::uint8_t>() % 14;
        if (!connected_ && op < 8)
            connect(0);
        switch (op) {
            case 0: batch_begin(); break;
            case 1:
            case 2: extents(); break;
            case 3: epoch(true); break;
            case 4: epoch(false); break;
            case 5: send(FrameType::point_request, PointRequest{1, PointKind::crash, fmt::format("p{}", in_.get<std::uint8_t>() % 4)}); break;
            case 6: batch_end(); break;
            case 7: raw(); break;
            case 8: connect(in_.get<std::uint8_t>()); break;
            case 9: commit_and_apply(); break;
            case 10: ask(); break;
            case 11: (void)store_->request_point(7, PointKind::crash, fmt::format("s{}", in_.get<std::uint8_t>() % 4)); break;
            case 12: (void)store_->remove_point(fmt::format("p{}", in_.get<std::uint8_t>() % 4)); break;
            case 13: {
                const std::uint64_t before = batch_;
                kill();
                lost = store_->durable().batch != before;
                break;
            }
            default: break;
        }
        if (lost)
            return;
    }
    finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    History(std::as_bytes(std::span(data, std::min<std::size_t>(size, 8192)))).run();
    return 0;
}

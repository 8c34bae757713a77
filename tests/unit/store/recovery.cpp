// SPDX-License-Identifier: Apache-2.0
// Seeded histories of one source against the model: power is cut at random operations of the file system, then the store is
// opened again, redo runs, and every recovery point must equal the source at its mark.
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <map>
#include <set>

#include <fmt/format.h>

#include "base/hash.hpp"
#include "crash_fs.hpp"
#include "model.hpp"
#include "store/export.hpp"
#include "store/source_store.hpp"

using namespace blkferry;
using namespace blkferry::store;
using namespace blkferry::test;

namespace {

class FakeClock final : public Clock {
public:
    std::uint64_t monotonic_ns() const noexcept override { return now += 50'000'000; }
    std::uint64_t realtime_ns() const noexcept override { return 1'700'000'000'000'000'000ULL + now; }
    mutable std::uint64_t now = 0;
};

const std::filesystem::path source_dir = "/store/sources/web1";
const Uuid store_id = Uuid::parse("00112233-4455-4677-8899-aabbccddeeff").value();

class History {
public:
    explicit History(std::uint64_t seed)
        : model_(seed, 2, 3000), random_(seed * 77 + 1), signer_(Signer::generate().value()) {
        fs_.reflinks = seed % 2 == 0;
        engine_ = seed % 2 == 0 ? make_reflink_engine() : make_copy_engine();
        options_.journal.segment_bytes = segment_bytes_min;
        options_.journal.spares_max = seed % 3;
        options_.journal_keep_bytes = (seed % 4) * 500'000;
        options_.applier.chunk_bytes = chunk_bytes_unit;
        options_.applier.checkpoint_bytes = 100'000 + below(1'500'000);
        options_.applier.checkpoint_ns = 20'000'000'000ULL;
        options_.applier.open_files_max = 1 + below(4);
        options_.applier.map_pages_max = 1 + below(3);
        options_.applier.direct_bytes_min = below(4) * 4096;
        options_.applier.turn_ns = UINT64_MAX;  // turns by bytes alone: the same for a seed on every machine
    }

    enum class End : std::uint8_t { none, power_cut, kill, error };
    /// One life of the server, and how it may end.
    void live(int steps, End end);
    void finish();
    std::uint64_t points_checked = 0;

private:
    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    [[nodiscard]] bool open();
    [[nodiscard]] bool connect();
    [[nodiscard]] bool step();
    [[nodiscard]] bool send(const ModelBatch& b, std::size_t frames);
    [[nodiscard]] bool send_batch();
    [[nodiscard]] bool stay_alone();
    [[nodiscard]] bool commit();
    [[nodiscard]] bool write_some(std::size_t leave);
    [[nodiscard]] bool apply(std::uint64_t budget);
    void take(const ApplyReport& report);
    [[nodiscard]] bool drop_a_point();
    void check_points();
    void acknowledged(const Durable& d);
    /// True if it worked; false if the power is gone; anything else is a failure of the test.
    template <class T>
    [[nodiscard]] bool ok(const Result<T>& r) {
        if (!r)
            BOOST_REQUIRE_MESSAGE(fs_.dead() || fs_.failed(), r.error().text);
        return r.has_value();
    }

    Model model_;
    std::mt19937_64 random_;
    CrashFs fs_;
    FakeClock clock_;
    std::unique_ptr<SnapshotEngine> engine_;
    std::unique_ptr<Signer> signer_;
    SourceOptions options_;
    std::unique_ptr<SourceStore> store_;
    std::vector<WriteTicket> flying_;                    ///< writes of the journal that have not reached the disk

    std::deque<ModelBatch> unacked_;
    std::size_t sent_ = 0;                               ///< of unacked_, in this connection
    std::uint64_t acked_ = 0;
    std::map<std::uint64_t, std::vector<std::uint64_t>> images_;  ///< mark -> hash of each disk
    std::map<std::string, bool> expected_;               ///< agent's requests: must they succeed
    std::set<std::string> published_;
    std::set<std::string> removed_;                      ///< or maybe removed
    std::uint64_t names_ = 0;
    std::uint64_t lives_ = 0;
};

bool History::open() {
    flying_.clear();
    store_.reset();
    options_.hand_off_bytes = below(3) == 0 ? 0 : below(2) == 0 ? 100'000 : 7U << 20;
    auto opened = SourceStore::open({fs_, clock_, *engine_, store_id, signer_.get(), nullptr}, source_dir, "web1", options_);
    if (!ok(opened))
        return false;
    store_ = std::move(*opened);
    BOOST_REQUIRE_MESSAGE(!store_->damage(), store_->damage()->text);  // a crash is not damage
    return connect();
}

bool History::connect() {
    const auto welcome = store_->connect(model_.hello());
    if (!ok(welcome))
        return false;
    BOOST_REQUIRE_GE(welcome->durable_batch, acked_);
    BOOST_REQUIRE_EQUAL(welcome->disks.size(), model_.disks());
    acknowledged(store_->durable());
    sent_ = 0;
    for (const auto& d : welcome->disks) {
        const auto awaited = model_.awaited_epoch(d.slot);
        const bool end_is_durable = std::ranges::none_of(unacked_, [&](const ModelBatch& b) {
            return std::ranges::find(b.ended_epochs, d.slot) != b.ended_epochs.end();
        });
        if (awaited && end_is_durable && d.epoch_seq == 0)
            model_.epoch_result(d.slot, *awaited, d.synced);
    }
    return true;
}

void History::acknowledged(const Durable& d) {
    acked_ = std::max(acked_, d.batch);
    while (!unacked_.empty() && unacked_.front().number <= d.batch) {
        BOOST_REQUIRE(unacked_.front().number < d.batch || unacked_.front().mark == d.mark);
        unacked_.pop_front();
        sent_ -= sent_ > 0 ? 1 : 0;
    }
}

bool History::send(const ModelBatch& b, std::size_t frames) {
    for (std::size_t i = 0; i < frames; ++i) {
        proto::FrameReader::View view;
        view.whole = b.frames[i];
        view.header = proto::decode_header(view.whole.first<proto::frame_header_bytes>()).value();
        view.wire = view.whole.subspan(proto::frame_header_bytes);
        const auto step = store_->take(view);
        if (!ok(step))
            return false;
        BOOST_REQUIRE_EQUAL(step->batch_end, i + 1 == b.frames.size());
    }
    return true;
}

bool History::send_batch() {
    if (sent_ == unacked_.size()) {
        if (unacked_.size() > 10)
            return true;
        unacked_.push_back(model_.next_batch());
        const ModelBatch& b = unacked_.back();
        if (b.consistent) {
            std::vector<std::uint64_t> hashes;
            for (const Bytes& image : b.images)
                hashes.push_back(xxh3(image));
            const auto [it, fresh] = images_.emplace(b.mark, hashes);
            BOOST_REQUIRE(fresh || it->second == hashes);
        }
        for (const std::string& name : b.points)
            expected_[name] = b.consistent;
        unacked_.back().images.clear();
    }
    const ModelBatch& b = unacked_[sent_];
    if (below(12) == 0) {  // the connection breaks inside of the batch
        if (!send(b, below(b.frames.size())))
            return false;
        return stay_alone() && connect();
    }
    if (!send(b, b.frames.size()))
        return false;
    ++sent_;
    return true;
}

/// The server may learn that the connection is gone before the next one comes: then a point need not wait for that.
bool History::stay_alone() {
    if (below(2) == 0)
        return true;
    if (!ok(store_->disconnect()))
        return false;
    sent_ = 0;
    const std::string name = fmt::format("alone-{}", ++names_);
    if (!ok(store_->request_point(names_, proto::PointKind::crash, name)))
        return false;
    const auto d = store_->commit();
    if (!ok(d))
        return false;
    acknowledged(*d);
    bool answered = false;
    while (store_->applied() < store_->durable().position) {
        const auto report = store_->apply_some(UINT64_MAX);
        if (!ok(report))
            return false;
        take(*report);
        answered = answered || std::ranges::any_of(report->points, [&](const auto& p) { return p.result.name == name; });
    }
    BOOST_REQUIRE_MESSAGE(answered, "a point waited for the next connection");
    return true;
}

/// Lets writes end, in any order, until at most `leave` are on their way.
bool History::write_some(std::size_t leave) {
    std::ranges::move(store_->take_writes(), std::back_inserter(flying_));
    while (flying_.size() > leave) {
        const auto it = flying_.begin() + static_cast<std::ptrdiff_t>(below(flying_.size()));
        const WriteTicket w = std::move(*it);
        flying_.erase(it);
        const auto written = w.file->write(w.data, w.offset);
        if (!ok(written)) {
            (void)store_->end_write(w.number, -EIO);
            return false;
        }
        if (!ok(store_->end_write(w.number, 0)))
            return false;
    }
    return true;
}

bool History::commit() {
    if (below(2) == 0) {
        const auto d = store_->commit();
        if (!ok(d))
            return false;
        acknowledged(*d);
        return true;
    }
    const auto ticket = store_->begin_commit();
    if (!ok(ticket))
        return false;
    if (!ticket->has_value())
        return true;
    if (below(2) == 0 && !send_batch())
        return false;
    if (!write_some(0))
        return false;
    BOOST_REQUIRE(store_->is_written(**ticket));
    Result<void> synced{};
    for (const auto& file : (*ticket)->files)
        if (synced)
            synced = file->sync();
    const auto d = store_->end_commit(**ticket, synced ? 0 : -EIO);
    if (!ok(d))
        return false;
    acknowledged(*d);
    return true;
}

bool History::apply(std::uint64_t budget) {
    const auto report = store_->apply_some(budget);
    if (!ok(report))
        return false;
    take(*report);
    return true;
}

void History::take(const ApplyReport& report) {
    for (const auto& e : report.epochs) {
        BOOST_REQUIRE_MESSAGE(e.ok, e.text);
        model_.epoch_result(e.slot, e.seq0, e.ok);
    }
    for (const auto& p : report.points) {
        const auto wanted = expected_.find(p.result.name);
        if (!p.from_server && wanted != expected_.end())
            BOOST_REQUIRE_MESSAGE(p.result.ok == wanted->second, p.result.name + ": " + p.result.text);
        if (p.result.ok)
            published_.insert(p.result.name);
    }
}

bool History::drop_a_point() {
    const auto all = store_->points().list();
    if (all.size() < 3)
        return true;
    const std::string name = all[below(all.size())].name;
    removed_.insert(name);
    const auto r = store_->remove_point(name);
    if (!r && !fs_.dead() && r.error().text.find("not decided") == std::string::npos)
        removed_.erase(name);  // it stays, also over the next start
    if (!ok(r))
        return false;
    return ok(store_->collect());
}

bool History::step() {
    switch (below(10)) {
        case 0:
        case 1:
        case 2:
        case 3: return send_batch();
        case 4:
        case 5: return commit();
        case 6: return apply(1 + below(400'000));
        case 7:
            if (below(3) == 0)
                model_.open_gap();
            return apply(1'000'000);
        case 8:
            ++names_;
            if (below(2) == 0)
                model_.ask_for_point(fmt::format("agent-{}", names_));
            else if (!ok(store_->request_point(names_, proto::PointKind::crash,
                                               below(2) == 0 ? "" : fmt::format("server-{}", names_))))
                return false;
            return true;
        default:
            if (below(4) == 0)
                return drop_a_point();
            if (below(4) == 0)
                return ok(store_->checkpoint());
            if (below(2) == 0)
                return write_some(below(4));
            if (below(8) == 0)
                store_->trim();
            if (below(40) == 0 && sent_ == unacked_.size()) {
                const auto d = store_->commit();
                if (!ok(d))
                    return false;
                acknowledged(*d);
                model_.lose_tracking(below(model_.disks()));
                return connect();
            }
            return true;
    }
}

void History::check_points() {
    const auto all = store_->points().list();
    std::set<std::string> names;
    for (const Manifest& m : all) {
        names.insert(m.name);
        const auto image = images_.find(m.mark);
        BOOST_REQUIRE_MESSAGE(image != images_.end(), "point at a mark that was not consistent");
        for (std::size_t i = 0; i < m.disks.size(); ++i) {
            const auto reader = PointReader::open_in(fs_, source_dir, m.name, m.disks[i].slot, signer_.get()).value();
            Bytes content(reader->bytes());
            BOOST_REQUIRE(reader->read(0, content).has_value());
            BOOST_REQUIRE_MESSAGE(xxh3(content) == image->second[i], "point " + m.name + " differs from the source");
            ++points_checked;
        }
    }
    for (const std::string& name : published_)
        if (!removed_.contains(name))
            BOOST_REQUIRE_MESSAGE(names.contains(name), "point " + name + " is gone");
    BOOST_REQUIRE(store_->points().damaged().empty());
    const auto chain = store_->points().verify_chain(0, {});
    BOOST_REQUIRE_MESSAGE(chain, (chain ? "" : chain.error().text));
}

void History::live(int steps, End end) {
    const std::uint64_t when = 1 + below(lives_ % 3 == 0 ? 40 : 700);
    if (end == End::error)
        fs_.fail_at(when, below(2) == 0 ? ENOSPC : EIO);
    else if (end != End::none)
        fs_.die_at(when);
    ++lives_;
    if (open()) {
        if (below(2) == 0)
            check_points();
        while (steps-- > 0 && step()) {
        }
        if (!fs_.dead())
            check_points();
    }
    if (end == End::power_cut)
        fs_.power_cut(random_);
    else
        fs_.process_kill();
}

void History::finish() {
    BOOST_REQUIRE(open());
    for (int i = 0; i < 2000 && !(model_.settled() && unacked_.empty()); ++i) {
        BOOST_REQUIRE(send_batch());
        if (i % 3 == 0)
            BOOST_REQUIRE(commit());
        BOOST_REQUIRE(apply(100'000'000));
    }
    BOOST_REQUIRE(model_.settled());
    model_.ask_for_point("last");
    do {
        BOOST_REQUIRE(send_batch());
        BOOST_REQUIRE(commit());
        BOOST_REQUIRE(apply(100'000'000));
    } while (!published_.contains("last"));
    check_points();
    BOOST_REQUIRE(store_->points().find("last").has_value());
    while (sent_ < unacked_.size())
        BOOST_REQUIRE(send_batch());
    acknowledged(store_->commit().value());
    BOOST_REQUIRE(apply(100'000'000));
    BOOST_REQUIRE(unacked_.empty() && store_->status().backlog_bytes == 0);
    for (std::uint16_t i = 0; i < model_.disks(); ++i) {
        proto::HashAsk ask{1, static_cast<std::uint16_t>(i * 3), 65536, 0, {}};
        const Bytes& image = model_.image(i);
        for (std::size_t at = 0; at < image.size(); at += 65536)
            ask.hashes.push_back(sha256(std::span(image).subspan(at, std::min<std::size_t>(65536, image.size() - at))));
        const auto reply = store_->compare(ask);
        BOOST_REQUIRE(reply.has_value());
        BOOST_REQUIRE(std::ranges::none_of(reply->differs, [](bool b) { return b; }));
        ask.hashes[3][5] ^= std::byte{1};
        BOOST_REQUIRE(store_->compare(ask)->differs[3]);
    }
}

std::uint64_t seeds(std::uint64_t few) {
    const char* more = std::getenv("BLKFERRY_SEEDS");
    return more != nullptr ? std::strtoull(more, nullptr, 10) : few;
}

std::uint64_t first_seed() {
    const char* first = std::getenv("BLKFERRY_SEED");
    return first != nullptr ? std::strtoull(first, nullptr, 10) : 1;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(recovery)

BOOST_AUTO_TEST_CASE(every_point_equals_the_source_without_faults) {
    for (std::uint64_t seed = first_seed(); seed < first_seed() + seeds(8); ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            History h(seed);
            h.live(300, History::End::none);
            h.finish();
            BOOST_TEST(h.points_checked > 0u);
        }
    }
}

BOOST_AUTO_TEST_CASE(every_point_equals_the_source_after_power_cuts) {
    for (std::uint64_t seed = first_seed(); seed < first_seed() + seeds(20); ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            History h(seed);
            for (int life = 0; life < 12; ++life)
                h.live(150, History::End::power_cut);
            h.finish();
            BOOST_TEST(h.points_checked > 0u);
        }
    }
}

// ENOSPC, EIO and failed syncs at any operation, process kills and power cuts in any order.
BOOST_AUTO_TEST_CASE(every_point_equals_the_source_after_errors_kills_and_power_cuts) {
    for (std::uint64_t seed = first_seed(); seed < first_seed() + seeds(20); ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            History h(seed);
            constexpr std::array ends{History::End::kill, History::End::error, History::End::power_cut};
            for (std::uint64_t life = 0; life < 16; ++life)
                h.live(120, ends[(seed * 31 + life * life) % ends.size()]);
            h.live(5, History::End::power_cut);
            h.finish();
            BOOST_TEST(h.points_checked > 0u);
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()

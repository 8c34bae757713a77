// SPDX-License-Identifier: Apache-2.0
// The whole store on the real file system, with catalogue, export and nbdkit.
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "model.hpp"
#include "store/export.hpp"
#include "store/store.hpp"

using namespace blkferry;
using namespace blkferry::store;
using namespace blkferry::test;

namespace {

struct Folder {
    std::filesystem::path path;
    Folder() {
        char name[] = "/tmp/blkferry-store-XXXXXX";
        path = ::mkdtemp(name);
    }
    ~Folder() { std::filesystem::remove_all(path); }
};

int run(const std::string& command) {
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Bytes file_bytes(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    const auto s = std::as_bytes(std::span(text));
    return {s.begin(), s.end()};
}

StoreOptions options() {
    StoreOptions o;
    o.source.journal.segment_bytes = segment_bytes_min;
    o.source.applier.chunk_bytes = chunk_bytes_unit;
    return o;
}

/// Sends batches until the model is in sync, then makes the named point; returns the images at it.
std::vector<Bytes> fill(SourceStore& store, Model& model, const std::string& point) {
    BOOST_REQUIRE(store.connect(model.hello()).has_value());
    std::vector<Bytes> images;
    bool made = false;
    for (int i = 0; i < 3000 && !made; ++i) {
        if (model.settled())
            model.ask_for_point(point);
        const ModelBatch b = model.next_batch();
        for (const Bytes& frame : b.frames) {
            const proto::FrameReader::View view{
                proto::decode_header(std::span(frame).first<proto::frame_header_bytes>()).value(), frame,
                std::span(frame).subspan(proto::frame_header_bytes)};
            const auto step = store.take(view);
            BOOST_REQUIRE_MESSAGE(step, (step ? "" : step.error().text));
        }
        BOOST_REQUIRE(store.commit().has_value());
        const auto report = store.apply_some(UINT64_MAX);
        BOOST_REQUIRE_MESSAGE(report, (report ? "" : report.error().text));
        BOOST_TEST(report->idle);
        for (const auto& e : report->epochs)
            model.epoch_result(e.slot, e.seq0, e.ok);
        for (const auto& p : report->points) {
            BOOST_TEST(p.result.ok, p.result.text);
            made = true;
            images = b.images;
        }
    }
    BOOST_REQUIRE(made);
    return images;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(store)

BOOST_AUTO_TEST_CASE(points_are_exported_catalogued_and_survive_a_rebuild) {
    const Folder folder;
    const SystemClock clock;
    const auto dir = folder.path / "store";
    Model model(42, 2, 3000);
    std::vector<Bytes> images;
    {
        auto opened = Store::open(dir, clock, options()).value();
        BOOST_TEST((Store::open(dir, clock, options()).error().code == Errc::busy));
        BOOST_TEST((rebuild_catalogue(dir).error().code == Errc::busy));
        auto source = opened->open_source("web1").value();
        images = fill(*source, model, "first");
        const auto reader = PointReader::open(Store::source_dir(dir, "web1"), "first", 3, &opened->signer()).value();
        BOOST_TEST((source->remove_point("first").error().code == Errc::busy));
        Bytes got(reader->bytes());
        BOOST_REQUIRE(reader->read(0, got).has_value());
        BOOST_TEST((got == images[1]));
        BOOST_TEST((reader->read(got.size() - 1, std::span(got).first(2)).error().code == Errc::invalid));

        const auto result = export_image(*reader, folder.path / "vdb.img", {}).value();
        BOOST_TEST(result.bytes == images[1].size());
        BOOST_TEST((result.sha256 == sha256(images[1])));
        BOOST_TEST((file_bytes(folder.path / "vdb.img") == images[1]));
        BOOST_TEST((digest_image(*reader, {}).value().sha256 == result.sha256));
        BOOST_TEST((export_image(*reader, folder.path / "vdb.img", {}).error().code == Errc::exists));
        BOOST_TEST((digest_image(*reader, [](std::uint64_t) { return false; }).error().code == Errc::closed));
        const auto rows = opened->catalogue().points("web1").value();
        BOOST_REQUIRE(rows.size() == 1u);
        BOOST_TEST(rows[0].name == "first");
        BOOST_TEST(rows[0].launchable == "unproven");
        BOOST_TEST(opened->catalogue().disks("web1").value().size() == 2u);
        BOOST_TEST(opened->catalogue().sources().value()[0].mark > 0u);
    }
    BOOST_TEST(rebuild_catalogue(dir).value() == 1u);
    std::ofstream(dir / "catalogue.sqlite", std::ios::trunc) << "this is no database, and long enough to be looked at";
    auto opened = Store::open(dir, clock, options()).value();
    BOOST_TEST(opened->catalogue().points("web1").value().size() == 1u);
    BOOST_TEST((opened->sources().value() == std::vector<std::string>{"web1"}));
    auto source = opened->open_source("web1").value();
    BOOST_TEST(source->points().verify_chain(1, source->points().find("first")->hash()).has_value());
    BOOST_TEST(source->remove_point("first").has_value());
    BOOST_TEST(opened->catalogue().points("web1").value().empty());
}

// Root exports from the store of the server's user; the server opens the lock when it removes the point.
BOOST_AUTO_TEST_CASE(what_root_leaves_in_a_store_is_its_owners) {
    if (::geteuid() != 0) {
        BOOST_TEST_MESSAGE("only root can give files away");
        return;
    }
    const Folder folder;
    const SystemClock clock;
    const auto dir = folder.path / "store";
    Model model(43, 1, 500);
    auto opened = Store::open(dir, clock, options()).value();
    auto source = opened->open_source("web1").value();
    fill(*source, model, "first");
    const auto points = Store::source_dir(dir, "web1") / "points";
    const auto slot = source->points().find("first")->disks[0].slot;
    constexpr uid_t nobody = 65534;
    BOOST_REQUIRE(::chown(points.c_str(), nobody, nobody) == 0);
    {
        const auto reader = PointReader::open(Store::source_dir(dir, "web1"), "first", slot, &opened->signer());
        const auto second = PointReader::open(Store::source_dir(dir, "web1"), "first", slot, &opened->signer());
        BOOST_TEST(reader.has_value());
        BOOST_TEST(second.has_value());
        struct stat lock {};
        BOOST_REQUIRE(::stat((points / "first.lock").c_str(), &lock) == 0);
        BOOST_TEST(lock.st_uid == nobody);
        BOOST_TEST(lock.st_gid == nobody);
    }
    BOOST_TEST(source->remove_point("first").has_value());
    BOOST_TEST(!std::filesystem::exists(points / "first.lock"));
}

BOOST_AUTO_TEST_CASE(a_damaged_journal_makes_every_disk_be_compared_and_keeps_the_points) {
    const Folder folder;
    const SystemClock clock;
    const auto dir = folder.path / "store";
    Model model(7, 2, 3000);
    const Uuid load = model.hello().load_id;
    {
        auto opened = Store::open(dir, clock, options()).value();
        auto source = opened->open_source("web1").value();
        (void)fill(*source, model, "first");
        BOOST_REQUIRE(source->checkpoint().has_value());
        // Acknowledged, applied, not in a checkpoint: redo needs the journal for it.
        (void)fill(*source, model, "second");
        BOOST_TEST((source->connect(model.hello())->load_id == load));
    }
    {
        std::vector<std::filesystem::path> segments;
        for (const auto& e : std::filesystem::directory_iterator(Store::source_dir(dir, "web1") / "journal"))
            if (e.path().extension() == ".seg")
                segments.push_back(e.path());
        std::fstream file(*std::ranges::max_element(segments), std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(40);
        file.put('\x55');  // the header of the newest segment
    }
    auto opened = Store::open(dir, clock, options()).value();
    {
        auto source = opened->open_source("web1").value();
        BOOST_REQUIRE(source->damage());
        BOOST_TEST(source->damage()->text.find(".seg") != std::string::npos, source->damage()->text);
    }
    // That it was damaged outlives the next start, until an agent came.
    auto source = opened->open_source("web1").value();
    BOOST_TEST(!source->damage());
    BOOST_REQUIRE(source->apply_some(UINT64_MAX).has_value());
    BOOST_TEST(!source->status().settled);
    BOOST_TEST(source->points().find("first").has_value());
    const auto welcome = source->connect(model.hello());
    BOOST_REQUIRE(welcome.has_value());
    BOOST_TEST((welcome->load_id != load));
    for (const proto::DiskState& d : welcome->disks) {
        BOOST_TEST(d.known);
        BOOST_TEST(!d.synced);
        BOOST_TEST(d.epoch_seq == 0u);
    }
}

namespace {
enum class Harm : std::uint8_t { bit, cut, gone };
void harm(const std::filesystem::path& file, Harm how) {
    if (how == Harm::gone) {
        std::filesystem::remove(file);
    } else if (how == Harm::cut) {
        std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    } else {
        std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
        f.seekp(100);
        f.put('\x01');
    }
}
}  // namespace

// The journal says how far the source had come, the points where generations are; all else is compared with the source.
BOOST_AUTO_TEST_CASE(a_damaged_or_lost_checkpoint_is_made_anew) {
    for (const Harm how : {Harm::bit, Harm::cut, Harm::gone}) {
        for (const bool journal_too : {false, true}) {
            BOOST_TEST_CONTEXT("harm " << static_cast<int>(how) << " journal too " << journal_too) {
                const Folder folder;
                const SystemClock clock;
                const auto dir = folder.path / "store";
                const auto source_dir = Store::source_dir(dir, "web1");
                Model model(7, 2, 3000);
                const Uuid load = model.hello().load_id;
                std::vector<Bytes> first;
                Durable before;
                {
                    auto opened = Store::open(dir, clock, options()).value();
                    auto source = opened->open_source("web1").value();
                    first = fill(*source, model, "first");
                    BOOST_REQUIRE(source->checkpoint().has_value());
                    (void)fill(*source, model, "second");
                    before = source->durable();
                }
                harm(source_dir / "checkpoint.json", how);
                if (journal_too)
                    std::filesystem::remove_all(source_dir / "journal");
                auto opened = Store::open(dir, clock, options()).value();
                auto source = opened->open_source("web1").value();
                BOOST_REQUIRE(source->checkpoint_damage());
                BOOST_TEST(source->checkpoint_damage()->text.find("checkpoint.json") != std::string::npos);
                BOOST_TEST(std::filesystem::exists(source_dir / "checkpoint.json.damaged") == (how != Harm::gone));
                BOOST_TEST(source->durable().batch == before.batch);
                BOOST_TEST(source->durable().mark == before.mark);
                BOOST_TEST(!source->chain_damage());
                BOOST_TEST(source->points().list().size() == 2U);
                const auto welcome = source->connect(model.hello());
                BOOST_REQUIRE_MESSAGE(welcome, (welcome ? "" : welcome.error().text));
                BOOST_TEST((welcome->load_id != load));
                for (const proto::DiskState& d : welcome->disks) {
                    BOOST_TEST(d.known);
                    BOOST_TEST(!d.synced);
                    BOOST_TEST(d.epoch_seq == 0u);
                }
                // Replication goes on into generations that no point sees.
                for (std::size_t i = 0; i < model.disks(); ++i)
                    model.lose_tracking(i);
                (void)fill(*source, model, "third");
                const auto disks = source->points().find("first")->disks;
                for (std::size_t i = 0; i < disks.size(); ++i) {
                    const auto reader = PointReader::open(source_dir, "first", disks[i].slot, &opened->signer()).value();
                    Bytes content(reader->bytes());
                    BOOST_REQUIRE(reader->read(0, content).has_value());
                    BOOST_TEST((content == first[i]));
                }
                source = nullptr;
                auto again = opened->open_source("web1");
                BOOST_REQUIRE_MESSAGE(again, (again ? "" : again.error().text));
                source = std::move(*again);
                BOOST_TEST(!source->checkpoint_damage());
                BOOST_TEST(source->points().list().size() == 3U);
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(another_machine_and_a_moved_disk_are_refused) {
    const Folder folder;
    const SystemClock clock;
    auto opened = Store::open(folder.path / "store", clock, options()).value();
    auto source = opened->open_source("web1").value();
    Model model(1, 2, 3000);
    proto::Hello hello = model.hello();
    const auto first = source->connect(hello).value();
    BOOST_TEST(first.session == 1u);
    BOOST_TEST(!first.disks[0].known);
    BOOST_TEST(first.load_id.is_nil());
    BOOST_TEST(source->connect(hello).value().session == 2u);
    proto::Hello clone = hello;
    clone.source_id = Uuid::random();
    BOOST_TEST((source->connect(clone).error().code == Errc::denied));
    proto::Hello moved = hello;
    moved.disks[0].disk_id = Uuid::random();
    BOOST_TEST((source->connect(moved).error().code == Errc::conflict));
    moved = hello;
    moved.disks[0].slot = 9;
    BOOST_TEST((source->connect(moved).error().code == Errc::conflict));
    BOOST_TEST((opened->open_source("../etc").error().code == Errc::invalid));
}

BOOST_AUTO_TEST_CASE(a_quota_refuses_batches_with_no_space) {
    const Folder folder;
    const SystemClock clock;
    StoreOptions o = options();
    o.source.quota_bytes = 1;
    auto opened = Store::open(folder.path / "store", clock, o).value();
    auto source = opened->open_source("web1").value();
    Model model(1, 2, 3000);
    BOOST_REQUIRE(source->connect(model.hello()).has_value());
    const ModelBatch b = model.next_batch();
    const proto::FrameReader::View view{
        proto::decode_header(std::span(b.frames[0]).first<proto::frame_header_bytes>()).value(), b.frames[0],
        std::span(b.frames[0]).subspan(proto::frame_header_bytes)};
    BOOST_TEST((source->take(view).error().code == Errc::no_space));
}

proto::FrameReader::View view_of(const Bytes& frame) {
    return {proto::decode_header(std::span(frame).first<proto::frame_header_bytes>()).value(), frame,
            std::span(frame).subspan(proto::frame_header_bytes)};
}

/// The maps of a resync grow with what a source names, not with what it sends.
BOOST_AUTO_TEST_CASE(disks_too_large_and_epochs_whose_maps_may_pass_the_quota_are_refused) {
    const Folder folder;
    const SystemClock clock;
    StoreOptions o = options();
    o.source.disks_bytes_max = 1ULL << 40;
    o.source.quota_bytes = 300ULL << 20;
    auto opened = Store::open(folder.path / "store", clock, o).value();
    auto source = opened->open_source("web1").value();
    Model model(1, 2, 3000);
    proto::Hello hello = model.hello();
    hello.disks[0].sectors = (1ULL << 40) / sector_bytes;
    const auto refused = source->connect(hello);
    BOOST_REQUIRE(!refused.has_value());
    BOOST_TEST((refused.error().code == Errc::no_space));
    BOOST_TEST(refused.error().text.find("source_size") != std::string::npos);
    hello.disks[0].sectors -= hello.disks[1].sectors;
    BOOST_REQUIRE(source->connect(hello).has_value());

    // An epoch of the small disk fits into the quota, one of the large disk could take 512 MiB of maps.
    for (const std::uint16_t slot : {hello.disks[1].slot, hello.disks[0].slot}) {
        std::vector<Bytes> frames(2);
        Bytes body;
        encode(proto::BatchBegin{0, 1, 1}, body);
        proto::encode_frame(proto::FrameType::batch_begin, 1, 0, body, nullptr, frames[0]);
        body.clear();
        encode(proto::EpochBegin{.slot = slot, .sectors = 8}, body);
        proto::encode_frame(proto::FrameType::epoch_begin, 1, 1, body, nullptr, frames[1]);
        BOOST_REQUIRE(source->connect(hello).has_value());
        BOOST_REQUIRE(source->take(view_of(frames[0])).has_value());
        const auto r = source->take(view_of(frames[1]));
        BOOST_TEST(r.has_value() == (slot == hello.disks[1].slot));
        if (!r)
            BOOST_TEST((r.error().code == Errc::no_space), r.error().text);
    }
}

/// A sanitized plugin does not load into an nbdkit that is not: the ordinary build runs this one.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
constexpr bool sanitized = __has_feature(address_sanitizer);
#else
constexpr bool sanitized = false;
#endif

BOOST_AUTO_TEST_CASE(nbdkit_serves_a_point_while_replication_goes_on) {
    if (sanitized) {
        BOOST_TEST_MESSAGE("skipped: nbdkit cannot load a sanitized plugin");
        return;
    }
    if (run("command -v nbdkit nbdcopy qemu-img >/dev/null") != 0 || !std::filesystem::exists(NBDKIT_PLUGIN)) {
        BOOST_TEST_MESSAGE("skipped: needs nbdkit, nbdcopy and qemu-img");
        return;
    }
    const Folder folder;
    const SystemClock clock;
    const auto dir = folder.path / "store";
    Model model(7, 2, 3000);
    auto opened = Store::open(dir, clock, options()).value();
    auto source = opened->open_source("web1").value();
    const std::vector<Bytes> images = fill(*source, model, "p1");
    (void)fill(*source, model, "p2");  // staging has moved on
    const std::string plugin = fmt::format("{} store={} source=web1 point=p1 key={}", NBDKIT_PLUGIN, dir.string(),
                                           (dir / "keys/manifest.pub.pem").string());
    const auto out = (folder.path / "out.img").string();
    // A socket of its own for each: with "-U -" nbdkit leaves its folder in /tmp when it refuses to start.
    auto nbdkit = [&, n = 0]() mutable { return fmt::format("nbdkit -U {}", (folder.path / fmt::format("nbd{}", n++)).string()); };
    BOOST_TEST(run(fmt::format("{} {} disk=0 --run 'nbdcopy \"$uri\" {}'", nbdkit(), plugin, out)) == 0);
    BOOST_TEST((file_bytes(out) == images[0]));
    BOOST_TEST(run(fmt::format("{} -r {} disk=3 --run 'qemu-img convert -O raw \"$uri\" {}.2'", nbdkit(), plugin, out)) == 0);
    BOOST_TEST((file_bytes(out + ".2") == images[1]));
    BOOST_TEST(run(fmt::format("{} {} disk=5 --run true 2>/dev/null", nbdkit(), plugin)) != 0);
    BOOST_TEST(run(fmt::format("{} {} disk=0 nonsense=1 --run true 2>/dev/null", nbdkit(), plugin)) != 0);
    BOOST_TEST(run(fmt::format("{} {} store={} source=web1 point=none --run true 2>/dev/null", nbdkit(), NBDKIT_PLUGIN,
                               dir.string())) != 0);
}

BOOST_AUTO_TEST_CASE(a_manifest_key_from_elsewhere_signs_and_stays) {
    const Folder folder;
    const SystemClock clock;
    const auto ours = Signer::generate();
    const auto other = Signer::generate();
    BOOST_REQUIRE((ours && other));
    const auto pem = folder.path / "manifest.pem";
    const auto other_pem = folder.path / "other.pem";
    BOOST_REQUIRE((*ours)->save_private(pem).has_value());
    BOOST_REQUIRE((*other)->save_private(other_pem).has_value());
    const auto refusal = [&](const std::filesystem::path& key) {
        StoreOptions o = options();
        o.manifest_key = key;
        const auto store = Store::open(folder.path / "store", clock, o);
        BOOST_REQUIRE(!store);
        return store.error();
    };
    StoreOptions o = options();
    o.manifest_key = pem;
    {
        const auto store = Store::open(folder.path / "store", clock, o);
        BOOST_REQUIRE_MESSAGE(store.has_value(), (store ? std::string() : store.error().text));
        BOOST_TEST((*store)->signer().key_id() == (*ours)->key_id());
    }
    BOOST_TEST(!std::filesystem::exists(folder.path / "store/keys/manifest.pem"));
    const auto known = Signer::load_public(folder.path / "store/keys/manifest.pub.pem");
    BOOST_REQUIRE(known.has_value());
    BOOST_TEST((*known)->key_id() == (*ours)->key_id());
    BOOST_TEST((refusal(other_pem).code == Errc::conflict));
    BOOST_TEST(refusal({}).text.find("set manifest_key") != std::string::npos);
    BOOST_TEST((refusal(folder.path / "none.pem").code == Errc::not_found));
    std::filesystem::permissions(pem, std::filesystem::perms(0640));
    BOOST_TEST(refusal(pem).text.find("chmod 600") != std::string::npos);
    std::filesystem::permissions(pem, std::filesystem::perms(0600));
    BOOST_TEST(Store::open(folder.path / "store", clock, o).has_value());
}

BOOST_AUTO_TEST_SUITE_END()

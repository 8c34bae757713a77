// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include <fmt/format.h>

#include "crash_fs.hpp"
#include "store/journal.hpp"
#include "store/journal_reader.hpp"

using namespace blkferry;
using namespace blkferry::store;
using blkferry::test::CrashFs;

namespace {

using Bytes = std::vector<std::byte>;
const std::filesystem::path dir = "/journal";
const Uuid store_id = Uuid::parse("00112233-4455-4677-8899-aabbccddeeff").value();
constexpr JournalOptions small{.segment_bytes = segment_bytes_min, .spares_max = 2};

Bytes pattern(std::size_t size, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    Bytes out(size);
    for (auto& b : out)
        b = static_cast<std::byte>(random());
    return out;
}

Result<JournalScan> scan_damaged(FileSystem& fs, Position from, std::vector<Bytes>& bodies) {
    bodies.clear();
    return journal_scan(fs, dir, store_id, from, [&](const EntryView& e) -> Result<void> {
        bodies.emplace_back(e.body.begin(), e.body.end());
        return {};
    });
}

/// A journal that nobody damaged: power cuts and failed writes must never look like damage.
Result<JournalScan> scan_all(FileSystem& fs, Position from, std::vector<Bytes>& bodies) {
    auto scan = scan_damaged(fs, from, bodies);
    if (scan && scan->damage)
        return std::unexpected(*scan->damage);
    return scan;
}

struct Opened {
    JournalScan scan;
    std::vector<Bytes> bodies;
    std::unique_ptr<Journal> journal;
};

Opened open_journal(FileSystem& fs, Position from = 0) {
    Opened o;
    auto scan = scan_all(fs, from, o.bodies);
    BOOST_REQUIRE_MESSAGE(scan, (scan ? "" : scan.error().text));
    o.scan = std::move(*scan);
    auto journal = Journal::resume(fs, dir, store_id, small, o.scan, o.scan.end);
    BOOST_REQUIRE_MESSAGE(journal, (journal ? "" : journal.error().text));
    o.journal = std::move(*journal);
    return o;
}

std::string newest_segment(const CrashFs& fs) {
    std::string out;
    for (const auto& path : fs.paths())
        if (path.ends_with(".seg"))
            out = std::max(out, path);
    return out;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(journal)

BOOST_AUTO_TEST_CASE(headers_round_trip_and_refuse_every_flipped_bit) {
    const SegmentHeader s{store_id, 7, 4096, 0x123456789ULL};
    const auto raw = encode(s);
    BOOST_TEST((decode_segment_header(raw).value() == s));
    const EntryHeader e{EntryType::frame, 100, 0xAABBCCDD, 16, 16, 42};
    const auto entry = encode(e);
    BOOST_TEST((decode_entry_header(entry).value() == e));
    for (std::size_t bit = 0; bit < 8 * raw.size(); ++bit) {
        auto bad = raw;
        bad[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        BOOST_TEST(!decode_segment_header(bad).has_value());
    }
    for (std::size_t bit = 0; bit < 8 * entry.size(); ++bit) {
        auto bad = entry;
        bad[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        BOOST_TEST(!decode_entry_header(bad).has_value());
    }
    BOOST_TEST(parse_segment_name(segment_name(18446744073709551ULL)).value() == 18446744073709551ULL);
    for (const char* name : {"", "1.seg", "0000000000000000000a.seg", "00000000000000000001.SEG", "99999999999999999999.seg"})
        BOOST_TEST(!parse_segment_name(name).has_value());
}

BOOST_AUTO_TEST_CASE(entries_come_back_in_order_over_segments_and_reopens) {
    CrashFs fs;
    std::vector<Bytes> written;
    Position end = 0;
    for (std::uint64_t round = 0; round < 4; ++round) {
        Opened o = open_journal(fs);
        BOOST_TEST((o.bodies == written));
        BOOST_TEST(o.scan.end == end);
        for (std::uint64_t i = 0; i < 12; ++i) {
            const Bytes body = pattern(i % 3 == 0 ? 700'000 : i * 311, round * 100 + i);
            end = o.journal->append(EntryType::frame, body).value().end;
            written.push_back(body);
        }
        BOOST_TEST(o.journal->committed() < end);
        BOOST_TEST(o.journal->commit().value() >= end);
        end = o.journal->end();  // padded
        BOOST_TEST(o.journal->committed() == end);
        BOOST_TEST(!o.journal->begin_commit().value().has_value());
    }
    BOOST_TEST(open_journal(fs).scan.segments.live.size() > 3u);
}

BOOST_AUTO_TEST_CASE(asynchronous_commit_covers_what_was_appended_before_it) {
    CrashFs fs;
    Opened o = open_journal(fs);
    const Position one = o.journal->append(EntryType::frame, pattern(1000, 1)).value().end;
    const auto ticket = o.journal->begin_commit().value();
    BOOST_REQUIRE(ticket.has_value());
    BOOST_TEST(ticket->position >= one);
    const Position two = o.journal->append(EntryType::frame, pattern(1000, 2)).value().end;
    BOOST_TEST(!o.journal->is_written(*ticket));
    for (const WriteTicket& w : o.journal->take_writes()) {
        BOOST_TEST(!o.journal->is_written(*ticket));
        BOOST_TEST(w.file->write(w.data, w.offset).has_value());
        BOOST_TEST(o.journal->end_write(w.number, 0).has_value());
    }
    BOOST_TEST(o.journal->is_written(*ticket));
    BOOST_TEST(o.journal->committed() == 0u);
    for (const auto& file : ticket->files)
        BOOST_TEST(file->sync().has_value());
    BOOST_TEST(o.journal->end_commit(*ticket, 0).value() == ticket->position);
    BOOST_TEST(o.journal->commit().value() >= two);
}

// The first commit syncs the segment, then more is written into it, and the journal goes on in the next one before that commit is
// told to be over: the second commit has to sync both.
BOOST_AUTO_TEST_CASE(a_segment_left_while_a_commit_is_under_way_is_synced_again) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            std::mt19937_64 random(seed);
            CrashFs fs;
            Position end = 0;
            std::vector<Bytes> written;
            {
                Opened o = open_journal(fs);
                const auto append = [&](std::size_t bytes) {
                    written.push_back(pattern(bytes, written.size()));
                    BOOST_REQUIRE(o.journal->append(EntryType::frame, written.back()));
                };
                const auto write_all = [&] {
                    for (const WriteTicket& w : o.journal->take_writes()) {
                        BOOST_REQUIRE(w.file->write(w.data, w.offset));
                        BOOST_REQUIRE(o.journal->end_write(w.number, 0));
                    }
                };
                const auto sync = [&](const SyncTicket& ticket) {
                    write_all();
                    for (const auto& file : ticket.files)
                        BOOST_REQUIRE(file->sync());
                };
                append(300'000);
                const auto first = o.journal->begin_commit().value();
                BOOST_REQUIRE(first.has_value());
                sync(*first);
                for (int i = 0; i < 5; ++i)
                    append(900'000);  // over the end of the segment
                write_all();
                BOOST_REQUIRE(o.journal->end_commit(*first, 0));
                const auto second = o.journal->begin_commit().value();
                BOOST_REQUIRE(second.has_value());
                sync(*second);
                end = o.journal->end_commit(*second, 0).value();
            }
            fs.power_cut(random);
            std::vector<Bytes> bodies;
            const auto scan = scan_all(fs, 0, bodies);
            BOOST_REQUIRE_MESSAGE(scan, (scan ? "" : scan.error().text));
            BOOST_TEST(scan->end == end);
            BOOST_TEST((bodies == written));
        }
    }
}

BOOST_AUTO_TEST_CASE(no_durable_block_is_ever_written_again) {
    CrashFs fs;
    Opened o = open_journal(fs);
    std::mt19937_64 random(9);
    std::map<std::pair<const File*, std::uint64_t>, std::uint64_t> written;  // block -> commits before it
    std::vector<std::shared_ptr<File>> files;
    for (std::uint64_t i = 0; i < 400; ++i) {
        // Sizes around what is left of a block: PADs of every kind.
        const std::size_t size = i % 3 == 0 ? random() % 900'000 : 4096 - random() % 200;
        BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(size, i)).has_value());
        if (random() % 2 != 0)
            continue;
        const auto ticket = o.journal->begin_commit().value();
        BOOST_REQUIRE(ticket.has_value());
        for (const WriteTicket& w : o.journal->take_writes()) {
            files.push_back(w.file);
            for (std::uint64_t at = w.offset; at < w.offset + w.data.size(); at += block_bytes)
                BOOST_REQUIRE(written.emplace(std::pair(w.file.get(), at), i).second);
            BOOST_REQUIRE(w.file->write(w.data, w.offset).has_value());
            BOOST_REQUIRE(o.journal->end_write(w.number, 0).has_value());
        }
        for (const auto& file : ticket->files)
            BOOST_REQUIRE(file->sync().has_value());
        BOOST_REQUIRE(o.journal->end_commit(*ticket, 0).has_value());
        if (i % 7 == 0)
            o.journal->trim();
        if (i % 5 == 0)
            o.journal->prepare_next();
    }
    const Position end = o.journal->end();
    o.journal.reset();
    const Opened again = open_journal(fs);
    BOOST_TEST(again.bodies.size() == 400u);
    BOOST_TEST(again.scan.end == end);
}

BOOST_AUTO_TEST_CASE(a_failed_sync_or_write_is_sticky) {
    for (const bool at_sync : {true, false}) {
        CrashFs fs;
        Opened o = open_journal(fs);
        BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(1000, 1)).has_value());
        const Position committed = o.journal->commit().value();
        BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(1000, 2)).has_value());
        fs.fail_at(at_sync ? 2 : 1, at_sync ? EIO : ENOSPC);
        const auto r = o.journal->commit();
        BOOST_REQUIRE(!r.has_value());
        BOOST_TEST((r.error().code == (at_sync ? Errc::io : Errc::no_space)));
        BOOST_TEST(o.journal->failed());
        BOOST_TEST(!o.journal->commit().has_value());
        BOOST_TEST(!o.journal->append(EntryType::frame, pattern(10, 3)).has_value());
        BOOST_TEST(o.journal->committed() == committed);
        o.journal.reset();
        BOOST_TEST(open_journal(fs).bodies.size() >= 1u);
    }
}

BOOST_AUTO_TEST_CASE(asynchronous_sync_error_is_sticky) {
    CrashFs fs;
    Opened o = open_journal(fs);
    BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(1000, 1)).has_value());
    const auto ticket = o.journal->begin_commit().value();
    for (const WriteTicket& w : o.journal->take_writes())
        BOOST_TEST(o.journal->end_write(w.number, 0).has_value());
    const auto r = o.journal->end_commit(*ticket, -EIO);
    BOOST_REQUIRE(!r.has_value());
    BOOST_TEST(r.error().sys_errno == EIO);
    BOOST_TEST(!o.journal->commit().has_value());
    BOOST_TEST(!o.journal->end_commit(*ticket, 0).has_value());
    BOOST_TEST(o.journal->committed() == 0u);
}

BOOST_AUTO_TEST_CASE(asynchronous_write_error_is_sticky) {
    CrashFs fs;
    Opened o = open_journal(fs);
    BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(1000, 1)).has_value());
    const auto ticket = o.journal->begin_commit().value();
    const auto writes = o.journal->take_writes();
    BOOST_REQUIRE(writes.size() == 1u);
    BOOST_TEST(o.journal->in_flight_bytes() == writes[0].data.size());
    BOOST_TEST((o.journal->end_write(writes[0].number, -ENOSPC).error().code == Errc::no_space));
    BOOST_TEST(o.journal->in_flight_bytes() == 0u);
    BOOST_TEST(!o.journal->end_commit(*ticket, 0).has_value());
    BOOST_TEST(!o.journal->append(EntryType::frame, pattern(1000, 1)).has_value());
    BOOST_TEST(o.journal->committed() == 0u);
}

BOOST_AUTO_TEST_CASE(a_damaged_byte_in_durable_entries_is_named_never_skipped) {
    CrashFs fs;
    std::vector<Position> starts;
    {
        Opened o = open_journal(fs);
        for (std::uint64_t i = 0; i < 20; ++i) {
            starts.push_back(o.journal->end());
            BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(500 + 100 * i, i)).has_value());
            BOOST_REQUIRE(o.journal->commit().has_value());
        }
    }
    auto* raw = fs.contents(newest_segment(fs));
    BOOST_REQUIRE(raw != nullptr);
    std::mt19937_64 random(1);
    for (int trial = 0; trial < 500; ++trial) {
        const std::size_t entry = random() % (starts.size() - 1);
        const std::uint64_t length = entry_header_bytes + 500 + 100 * entry;
        const std::uint64_t offset = segment_header_bytes + starts[entry] + random() % length;
        const auto flip = static_cast<std::byte>(1U << random() % 8);
        (*raw)[offset] ^= flip;
        std::vector<Bytes> bodies;
        const auto r = scan_damaged(fs, 0, bodies);
        (*raw)[offset] ^= flip;
        BOOST_REQUIRE(r.has_value() && r->damage);
        BOOST_TEST(r->damage->text.find(fmt::format("byte {} ", segment_header_bytes + starts[entry])) != std::string::npos,
                   r->damage->text);
        BOOST_TEST(bodies.size() == entry);
        BOOST_TEST(r->end == starts[entry]);
    }
    (*raw)[20] ^= std::byte{1};
    std::vector<Bytes> bodies;
    const auto r = scan_damaged(fs, 0, bodies);
    BOOST_REQUIRE(r.has_value() && r->damage);
    BOOST_TEST(bodies.empty());
}

BOOST_AUTO_TEST_CASE(damage_in_an_older_segment_and_a_missing_one_are_told) {
    CrashFs fs;
    {
        Opened o = open_journal(fs);
        for (std::uint64_t i = 0; i < 12; ++i) {
            BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(1'000'000, i)).has_value());
            BOOST_REQUIRE(o.journal->commit().has_value());
        }
    }
    std::vector<Bytes> bodies;
    auto* raw = fs.contents(dir / segment_name(1));
    BOOST_REQUIRE(raw != nullptr);
    (*raw)[segment_header_bytes + 2'000'000] ^= std::byte{4};
    BOOST_TEST(scan_damaged(fs, 0, bodies)->damage.has_value());
    (*raw)[segment_header_bytes + 2'000'000] ^= std::byte{4};
    BOOST_REQUIRE(scan_all(fs, 0, bodies).has_value());
    BOOST_REQUIRE(fs.remove(dir / segment_name(2)).has_value());
    BOOST_TEST(scan_damaged(fs, 0, bodies)->damage.has_value());
    BOOST_REQUIRE(fs.remove(dir / segment_name(1)).has_value());
    BOOST_TEST(scan_damaged(fs, 0, bodies)->damage.has_value());
}

BOOST_AUTO_TEST_CASE(behind_damage_the_journal_goes_on_and_damaged_files_are_kept) {
    // A bit in the middle of an older segment, then a bad header of the newest one, then the oldest file lost.
    for (int kind = 0; kind < 3; ++kind) {
        CrashFs fs;
        {
            Opened o = open_journal(fs);
            for (std::uint64_t i = 0; i < 14; ++i) {
                BOOST_REQUIRE(o.journal->append(EntryType::frame, pattern(1'000'000, i)).has_value());
                BOOST_REQUIRE(o.journal->commit().has_value());
            }
        }
        if (kind == 0)
            (*fs.contents(dir / segment_name(2)))[segment_header_bytes + 2'000'000] ^= std::byte{4};
        else if (kind == 1)
            (*fs.contents(newest_segment(fs)))[32] ^= std::byte{1};
        else
            BOOST_REQUIRE(fs.remove(dir / segment_name(1)).has_value());
        std::vector<Bytes> good;
        auto scan = scan_damaged(fs, 0, good);
        BOOST_REQUIRE(scan && scan->damage);
        BOOST_TEST((kind == 2) == good.empty());
        {
            auto journal = Journal::resume(fs, dir, store_id, small, *scan, scan->end);
            BOOST_REQUIRE_MESSAGE(journal, (journal ? "" : journal.error().text));
            BOOST_REQUIRE((*journal)->append(EntryType::frame, pattern(1000, 99)).has_value());
            BOOST_REQUIRE((*journal)->commit().has_value());
        }
        std::vector<Bytes> bodies;
        scan = scan_all(fs, 0, bodies);
        BOOST_REQUIRE_MESSAGE(scan, (scan ? "" : scan.error().text));
        good.push_back(pattern(1000, 99));
        BOOST_TEST((bodies == good));
        const auto names = fs.list(dir).value();
        BOOST_TEST(std::ranges::any_of(names, [](const std::string& n) { return n.ends_with(".damaged"); }));
    }
}

BOOST_AUTO_TEST_CASE(power_cuts_lose_only_what_was_never_committed) {
    const char* more = std::getenv("BLKFERRY_SEEDS");
    const std::uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 60;
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            std::mt19937_64 random(seed);
            CrashFs fs;
            std::vector<std::pair<Position, Bytes>> log;  // what the journal must hold, ascending
            Position acknowledged = 0;
            Position dropped = 0;
            for (int life = 0; life < 6; ++life) {
                std::vector<Bytes> bodies;
                auto scan = scan_all(fs, dropped, bodies);
                BOOST_REQUIRE_MESSAGE(scan, (scan ? "" : scan.error().text));
                BOOST_REQUIRE(scan->end >= acknowledged);
                while (!log.empty() && log.back().first >= scan->end)
                    log.pop_back();
                std::size_t i = bodies.size();
                for (auto it = log.rbegin(); it != log.rend() && it->first >= dropped; ++it)
                    BOOST_REQUIRE(i > 0 && bodies[--i] == it->second);
                BOOST_REQUIRE(i == 0);
                // As after an unfinished batch: not everything that is readable is kept.
                Position cut = scan->end;
                const auto uncut = log;
                while (!log.empty() && log.back().first >= acknowledged && random() % 3 == 0) {
                    cut = log.back().first;
                    log.pop_back();
                }
                if (random() % 4 != 0)
                    fs.die_at(1 + random() % 60);
                auto resumed = Journal::resume(fs, dir, store_id, small, *scan, cut);
                if (!resumed)
                    log = uncut;  // the cut may or may not have reached the disk
                while (resumed && !fs.dead()) {
                    const Bytes body = pattern(random() % 8 == 0 ? random() % 1'000'000 : random() % 3000, random());
                    const auto at = (*resumed)->reserve(body.size());
                    if (!at)
                        break;
                    log.emplace_back(*at, body);  // one that fails may be there all the same
                    if (!(*resumed)->append(EntryType::frame, body))
                        break;
                    if (random() % 3 == 0)
                        if (const auto r = (*resumed)->commit())
                            acknowledged = *r;
                    if (random() % 20 == 0) {
                        dropped = acknowledged;
                        (void)(*resumed)->drop_below(dropped);
                    }
                    if (log.size() % 40 == 0)
                        break;
                }
                fs.power_cut(random);
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(reader_follows_the_live_tail_and_stops_at_the_limit) {
    CrashFs fs;
    Opened o = open_journal(fs);
    JournalReader reader(fs, dir, store_id, 0);
    BOOST_TEST((reader.next(0).error().code == Errc::again));
    std::mt19937_64 random(5);
    std::vector<Bytes> waiting;
    std::size_t read = 0;
    for (std::uint64_t i = 0; i < 200; ++i) {
        waiting.push_back(pattern(random() % 5 == 0 ? 300'000 : random() % 2000, i));
        BOOST_REQUIRE(o.journal->append(EntryType::frame, waiting.back()).has_value());
        if (random() % 3 != 0)
            continue;
        const Position limit = o.journal->commit().value();
        while (reader.position() < limit) {
            const Position at = reader.position();
            const auto head = reader.next_head(limit, 48);
            if (!head && head.error().code == Errc::again)
                break;  // padding
            BOOST_REQUIRE(head.has_value());
            reader.seek(at);
            const auto entry = reader.next(limit);
            BOOST_REQUIRE_MESSAGE(entry, (entry ? "" : entry.error().text));
            BOOST_TEST((Bytes(entry->body.begin(), entry->body.end()) == waiting[read]));
            ++read;
        }
        BOOST_TEST((reader.next(limit).error().code == Errc::again));
        BOOST_REQUIRE(o.journal->drop_below(reader.position()).has_value());
    }
    BOOST_TEST(read > 100u);
    BOOST_TEST(o.journal->begin() > 0u);
    JournalReader late(fs, dir, store_id, 0);
    BOOST_TEST((late.next(o.journal->committed()).error().code == Errc::not_found));
}

BOOST_AUTO_TEST_CASE(the_real_file_system_does_it_too) {
    char name[] = "/tmp/blkferry-journal-XXXXXX";
    const std::filesystem::path real = ::mkdtemp(name);
    const auto fs = make_posix_file_system();
    std::size_t count = 0;
    for (int round = 0; round < 3; ++round) {
        std::size_t seen = 0;
        const auto scan = journal_scan(*fs, real, store_id, 0, [&](const EntryView& e) -> Result<void> {
            BOOST_TEST((Bytes(e.body.begin(), e.body.end()) == pattern(e.body.size(), seen)));
            ++seen;
            return {};
        });
        BOOST_REQUIRE(scan.has_value());
        BOOST_TEST(seen == count);
        auto journal = Journal::resume(*fs, real, store_id, small, *scan, scan->end).value();
        for (std::uint64_t i = 0; i < 10; ++i, ++count)
            BOOST_REQUIRE(journal->append(EntryType::frame, pattern(i * 90'000, count)).has_value());
        BOOST_REQUIRE(journal->commit().has_value());
    }
    std::filesystem::remove_all(real);
}

BOOST_AUTO_TEST_SUITE_END()

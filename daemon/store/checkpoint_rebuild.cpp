// SPDX-License-Identifier: Apache-2.0
#include "store/checkpoint_rebuild.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "codec/compress.hpp"
#include "proto/frame.hpp"
#include "store/chunk_store.hpp"
#include "store/journal_scan.hpp"
#include "store/point.hpp"

namespace blkferry::store {

namespace {

/// What the folder of a source tells beside its checkpoint.
class Remains {
public:
    Remains(FileSystem& files, std::filesystem::path dir, const Uuid& store, const Signer* signer)
        : files_(files), dir_(std::move(dir)), store_(store), signer_(signer) {}

    Result<void> look() {
        BLKFERRY_TRY_ASSIGN(points_, PointStore::open(files_, dir_ / "points", signer_, PointStore::Access::look));
        head_ = points_->head();
        for (const Manifest& m : points_->list())
            for (const ManifestDisk& d : m.disks)
                generation_ = std::max(generation_, d.generation);
        BLKFERRY_TRY(look_at_chunks());
        BLKFERRY_TRY_ASSIGN(const SegmentList segments, list_segments(files_, dir_ / "journal", store_));
        journal_begin_ = segments.live.empty() ? 0 : segments.live.front().header.first;
        return {};
    }

    /// Before the first checkpoint the journal is whole, and there is nothing that only a checkpoint makes.
    [[nodiscard]] bool had_checkpoint() const {
        return head_.serial != 0 || generation_ > 1 || journal_begin_ != 0 || !points_->damaged().empty();
    }

    Result<Checkpoint> rebuild(std::uint64_t chunk_bytes) {
        checkpoint_.chunk_bytes = chunk_bytes;
        BLKFERRY_TRY_ASSIGN(const JournalScan scan, journal_scan(files_, dir_ / "journal", store_, journal_begin_,
                                                                [this](const EntryView& entry) { return visit(entry); }));
        checkpoint_.position = scan.end;  // what lies behind the last complete batch will never be complete
        checkpoint_.table.load_id = {};
        if (const auto points = points_->list(); !points.empty())
            take_over(points.back());
        for (const auto& [slot, disk] : std::map(checkpoint_.table.disks())) {
            Disk known = disk;
            known.known = true;
            checkpoint_.table.restore(std::move(known));
        }
        // One generation for each point that was ever made; a damaged one may be the newest.
        checkpoint_.generation = std::max(generation_, head_.serial + points_->damaged().size()) + 1;
        checkpoint_.head_serial = head_.serial;
        checkpoint_.head_hash = head_.hash;
        return std::move(checkpoint_);
    }

private:
    Result<void> look_at_chunks() {
        for (std::size_t slot = 0; slot < proto::disks_max; ++slot) {
            const auto names = files_.list(dir_ / "disks" / fmt::format("{:03}", slot));
            if (!names && names.error().code == Errc::not_found)
                continue;
            if (!names)
                return std::unexpected(names.error());
            for (const std::string& name : *names)
                if (const auto chunk = parse_chunk_name(name))
                    generation_ = std::max(generation_, chunk->generation);
        }
        return {};
    }

    /// Only what tells how far the source had come, and whose it is.
    Result<void> visit(const EntryView& entry) {
        if (entry.header.type == EntryType::session) {
            BLKFERRY_TRY_ASSIGN(const Session session, decode_session(entry.body));
            return checkpoint_.table.begin_session(session);
        }
        if (entry.header.type != EntryType::frame)
            return {};
        if (entry.body.size() < proto::frame_header_bytes)
            return fail(Errc::corrupt, fmt::format("journal entry at position {} is too short for a frame", entry.position()));
        BLKFERRY_TRY_ASSIGN(const proto::FrameHeader header, proto::decode_header(entry.body.first<proto::frame_header_bytes>()));
        if (header.type != proto::FrameType::batch_begin && header.type != proto::FrameType::batch_end)
            return {};
        BLKFERRY_TRY_ASSIGN(const auto body, proto::decode_body(header, entry.body.subspan(proto::frame_header_bytes),
                                                                decompressor_, scratch_));
        if (header.type == proto::FrameType::batch_begin) {
            BLKFERRY_TRY_ASSIGN(begin_, proto::decode_batch_begin(body));
            begun_ = header.batch;
        } else if (begun_ == header.batch) {  // else the segment with its begin was dropped
            BLKFERRY_TRY_ASSIGN(const proto::BatchEnd end, proto::decode_batch_end(body));
            checkpoint_.batch = header.batch;
            checkpoint_.mark = begin_.mark;
            checkpoint_.mark_time_ns = begin_.time_ns;
            checkpoint_.consistent = end.consistent;
        }
        return {};
    }

    /// The newest point knows the size of chunks; where the journal has less, it knows more.
    void take_over(const Manifest& m) {
        if (!m.disks.empty())
            checkpoint_.chunk_bytes = m.disks.front().chunk_bytes;
        if (m.batch > checkpoint_.batch) {
            checkpoint_.batch = m.batch;
            checkpoint_.mark = m.mark;
            checkpoint_.mark_time_ns = m.mark_time_ns;
            checkpoint_.consistent = false;
        }
        if (!checkpoint_.table.disks().empty())
            return;
        checkpoint_.table.source_id = m.source_id;
        for (const ManifestDisk& d : m.disks) {
            Disk disk;
            disk.info = {d.slot, d.disk_id, d.name, d.identity, d.sectors, d.logical_block, {}};
            checkpoint_.table.restore(std::move(disk));
        }
    }

    FileSystem& files_;
    const std::filesystem::path dir_;
    const Uuid store_;
    const Signer* signer_;
    std::unique_ptr<PointStore> points_;
    PointHead head_;
    Generation generation_ = 0;  ///< highest of any chunk file or point
    Position journal_begin_ = 0;
    Checkpoint checkpoint_;
    proto::BatchBegin begin_;    ///< of batch begun_
    std::uint64_t begun_ = 0;
    Decompressor decompressor_;
    std::vector<std::byte> scratch_;
};

}  // namespace

Result<FoundCheckpoint> find_checkpoint(FileSystem& files, const std::filesystem::path& dir, const Uuid& store,
                                        const Signer* signer, std::uint64_t chunk_bytes) {
    const auto path = dir / "checkpoint.json";
    FoundCheckpoint found;
    auto text = files.read_text(path, checkpoint_bytes_max);
    const bool unreadable = !text && text.error().code != Errc::not_found && text.error().code != Errc::invalid;
    if (unreadable)
        return std::unexpected(std::move(text).error());
    auto decoded = text ? decode_checkpoint(*text) : std::unexpected(text.error());
    if (decoded) {
        found.checkpoint = std::move(*decoded);
        BLKFERRY_TRY(files.sync_dir(dir));  // a process that died may have renamed it only just now
        return found;
    }
    Remains remains(files, dir, store, signer);
    BLKFERRY_TRY(remains.look());
    if (!text && text.error().code == Errc::not_found && !remains.had_checkpoint()) {
        found.checkpoint.chunk_bytes = chunk_bytes;
        return found;
    }
    found.damage = std::move(decoded).error().with(path.string());
    BLKFERRY_TRY_ASSIGN(found.checkpoint, remains.rebuild(chunk_bytes));
    if (text)
        BLKFERRY_TRY(files.write_text_durable(dir / "checkpoint.json.damaged", *text));
    BLKFERRY_TRY(files.write_text_durable(path, encode(found.checkpoint)));
    return found;
}

}  // namespace blkferry::store

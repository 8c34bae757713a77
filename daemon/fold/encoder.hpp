// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "codec/compress.hpp"
#include "fold/folder.hpp"
#include "proto/batch.hpp"

namespace blkferry::fold {

/// Uninitialised, reusable bytes: growing keeps nothing and zeroes nothing.
class FrameBuffer {
public:
    /// Makes room for at least `capacity` bytes; contents are undefined if it had to grow. Size becomes 0.
    void prepare(std::size_t capacity);
    [[nodiscard]] std::byte* data() noexcept { return data_.get(); }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
    void set_size(std::size_t n) noexcept { size_ = n; }
    [[nodiscard]] std::span<const std::byte> view() const noexcept { return {data_.get(), size_}; }

private:
    std::unique_ptr<std::byte[]> data_;
    std::size_t capacity_ = 0;
    std::size_t size_ = 0;
};

struct EncodeOptions {
    /// Payload of one EXTENTS frame: the unit of compression. 128 KiB .. 512 KiB, multiple of 4 KiB.
    std::size_t frame_payload_bytes = 256U << 10;
    /// Turn all-zero 4 KiB pieces of payload into entries without payload.
    bool detect_zero = true;
};

/// What a job put into its frame; the sums over all jobs go to BatchPlan::end().
struct JobTotals {
    std::uint64_t extents = 0;
    std::uint64_t payload_bytes = 0;
    std::uint64_t zero_bytes = 0;  ///< payload that turned out to be zero and was left out

    JobTotals& operator+=(const JobTotals& o) noexcept {
        extents += o.extents;
        payload_bytes += o.payload_bytes;
        zero_bytes += o.zero_bytes;
        return *this;
    }
};

/// Everything of a batch but the captured extents.
struct BatchParts {
    std::uint64_t batch = 0;  ///< number of the batch, >= 1
    proto::BatchBegin begin;
    std::vector<proto::EpochBegin> epoch_begins;  ///< in front of all extents
    std::vector<Piece> resync;                    ///< resync_data, resync_zero, resync_same; buffers are the caller's
    std::vector<proto::EpochEnd> epoch_ends;      ///< behind all extents
    std::vector<proto::PointRequest> points;
};

/// A batch cut into frames that can be encoded independently of each other:
///
///     begin(out)                      BATCH_BEGIN and EPOCH_BEGINs
///     encode(i, ...) for 0 <= i < jobs()   one EXTENTS frame each, any thread, any order; send in order of i
///     end(totals, consistent, out)    EPOCH_ENDs, POINT_REQUESTs, BATCH_END
///
/// All methods are const and thread-safe. The payload that pieces point to must stay until the last encode() returned.
class BatchPlan {
public:
    /// Takes folded extents and parts over. Errc::no_space: the batch would exceed a limit of proto/limits.hpp (cannot
    /// happen if Folder::fits() and ResyncBudget were asked); Errc::invalid: options or parts out of range.
    [[nodiscard]] static Result<BatchPlan> make(Folded folded, BatchParts parts, EncodeOptions options = {});

    [[nodiscard]] std::size_t jobs() const noexcept { return jobs_.size(); }
    [[nodiscard]] std::size_t frames() const noexcept;
    /// Payload bytes of job i before zero detection and compression (to spread work).
    [[nodiscard]] std::size_t job_payload_bytes(std::size_t job) const noexcept { return jobs_[job].payload_bytes; }
    [[nodiscard]] std::uint64_t payload_bytes() const noexcept { return payload_bytes_; }
    [[nodiscard]] const BatchParts& parts() const noexcept { return parts_; }

    void begin(std::vector<std::byte>& out) const;
    /// Encodes frame `job` into `out` (header and body, ready to send). Compresses if `compressor` is given and it pays;
    /// else the payload is copied once, from where it lies into the frame. `scratch` is used when compressing.
    JobTotals encode(std::size_t job, Compressor* compressor, FrameBuffer& scratch, FrameBuffer& out) const;
    void end(const JobTotals& totals, bool consistent, std::vector<std::byte>& out) const;

private:
    struct Job {
        std::size_t first = 0;  ///< pieces [first, past)
        std::size_t past = 0;
        std::size_t payload_bytes = 0;
        std::size_t entries = 0;      ///< before zero detection
        std::size_t entries_max = 0;  ///< that zero detection may make of them
    };
    BatchPlan() = default;
    [[nodiscard]] Result<void> check(const Folded& folded) const;
    void cut(const Piece& piece);
    void push(const Piece& piece);
    [[nodiscard]] Result<void> check_limits(std::size_t entries) const;
    void spread_zero_budget(std::size_t entries);

    BatchParts parts_;
    EncodeOptions options_;
    std::vector<Piece> pieces_;      ///< cut at frame boundaries
    std::uint64_t entry_sectors_ = 0;  ///< of the entry that push() may extend
    std::vector<Job> jobs_;
    std::uint64_t payload_bytes_ = 0;
    std::uint64_t sectors_ = 0;
    std::uint64_t digest_ = 0;
};

/// Tells the resync reader how much still fits into the open batch beside the folded extents (with FoldLimits' share
/// of the limits as default). Ask before adding a piece to BatchParts::resync.
class ResyncBudget {
public:
    explicit ResyncBudget(const FoldLimits& fold = {}) noexcept
        : extents_(proto::batch_extents_max - fold.extents_max - reserve(fold.extents_max)),
          payload_bytes_(proto::batch_payload_bytes_max - fold.payload_bytes_max) {}
    /// Takes the piece's share and returns true, or returns false: close the batch first.
    [[nodiscard]] bool take(const Piece& piece) noexcept;

private:
    /// Cutting pieces at frame boundaries makes at most one more entry per frame.
    [[nodiscard]] static std::size_t reserve(std::size_t) noexcept { return proto::batch_extents_max / 16; }
    std::size_t extents_;
    std::uint64_t payload_bytes_;
};

}  // namespace blkferry::fold

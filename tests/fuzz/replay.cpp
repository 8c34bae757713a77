// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

/// Runs a fuzz target over the files of the given folders: the corpus as a unit test, without libFuzzer.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
    namespace fs = std::filesystem;
    std::size_t files = 0;
    for (int i = 1; i < argc; ++i) {
        std::error_code error;
        for (const auto& entry : fs::recursive_directory_iterator(argv[i], error)) {
            if (!entry.is_regular_file())
                continue;
            std::ifstream file(entry.path(), std::ios::binary);
            const std::vector<char> raw{std::istreambuf_iterator<char>(file), {}};
            // A copy of exactly this size, so that a sanitizer sees a read past its end.
            const std::vector<std::uint8_t> data(raw.begin(), raw.end());
            std::printf("%s: %zu bytes\n", entry.path().c_str(), data.size());
            std::fflush(stdout);
            LLVMFuzzerTestOneInput(data.data(), data.size());
            ++files;
        }
        if (error) {
            std::fprintf(stderr, "cannot list %s: %s\n", argv[i], error.message().c_str());
            return 1;
        }
    }
    if (files == 0) {
        std::fprintf(stderr, "no input: give one or more folders with files\n");
        return 1;
    }
    std::printf("%zu files\n", files);
    return 0;
}

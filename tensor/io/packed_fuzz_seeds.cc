// Writes what the fuzz target of packed files starts from, small sound files
// and the manifest of each: packed_fuzz_seeds FILE MANIFEST FILE MANIFEST
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "tensor/io/packed_header.h"
#include "tensor/io/packed_test_files.h"

namespace {

void Write(const std::string& file, const char* file_path,
           const char* manifest_path) {
  nibble::PackedHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  const std::string manifest =
      file.substr(header.manifest_offset, header.manifest_bytes);
  std::ofstream(file_path, std::ios::binary) << file;
  std::ofstream(manifest_path, std::ios::binary) << manifest;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr,
                 "usage: packed_fuzz_seeds FILE MANIFEST FILE MANIFEST\n");
    return 1;
  }
  Write(nibble::testing::SmallNib(), argv[1], argv[2]);
  Write(nibble::testing::OrderedNib(), argv[3], argv[4]);
}

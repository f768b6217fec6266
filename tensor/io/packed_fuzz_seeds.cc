// Writes what the fuzz target of packed files starts from, a small sound file
// and the manifest of it: packed_fuzz_seeds FILE MANIFEST
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "tensor/io/packed_header.h"
#include "tensor/io/packed_test_files.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: packed_fuzz_seeds FILE MANIFEST\n");
    return 1;
  }
  const std::string file = nibble::testing::SmallNib();
  nibble::PackedHeader header;
  std::memcpy(&header, file.data(), sizeof(header));
  const std::string manifest =
      file.substr(header.manifest_offset, header.manifest_bytes);
  std::ofstream(argv[1], std::ios::binary) << file;
  std::ofstream(argv[2], std::ios::binary) << manifest;
}

#pragma once
/// Version of the library, semantic versioning. The ABI namespace carries major and minor.

#define PHI4FLASH_VERSION_MAJOR 0
#define PHI4FLASH_VERSION_MINOR 1
#define PHI4FLASH_VERSION_PATCH 0
#define PHI4FLASH_VERSION_STRING "0.1.0"

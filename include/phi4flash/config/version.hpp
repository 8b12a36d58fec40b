#pragma once
/// Version of the library, semantic versioning. All three numbers are part of the ABI namespace: inline functions change with any of them.

#define PHI4FLASH_VERSION_MAJOR 0
#define PHI4FLASH_VERSION_MINOR 2
#define PHI4FLASH_VERSION_PATCH 0
#define PHI4FLASH_VERSION_STRING "0.2.0"

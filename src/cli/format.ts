// Numbers as a terminal shows them.

/** `5.63 GB`: units of 1000, as disks and the hub count. */
export function formatBytes(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  // as rounded: 999,900 bytes are 1 MB, not 1,000 kB
  const rounded = Number(bytes.toPrecision(3));
  const unit = Math.min(units.length - 1, bytes < 1000 ? 0 : Math.floor(Math.log10(rounded) / 3));
  return unit === 0 ? `${bytes} bytes` : `${(bytes / 1000 ** unit).toLocaleString('en', { maximumSignificantDigits: 3 })} ${units[unit]}`;
}

/** `2,815,975,424`. */
export function formatCount(count: number): string {
  return count.toLocaleString('en');
}

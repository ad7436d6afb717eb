// Which addresses lie in the public internet: a server that fetches what others name must not reach its own
// neighbors. Ranges are those of IANA's special-purpose registries.

import { BlockList, isIP } from 'node:net';

/** By family: a list would take IPv4 addresses for IPv6 ones that are mapped. */
const SUBNETS = [
  '0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24',
  '192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4',
  // all but what is given out (2000::/3), and of that what leads elsewhere: Teredo, 6to4, documentation
  '::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 2002::/16 3fff::/20',
];
const [notPublic4, notPublic6] = [new BlockList(), new BlockList()];
for (const subnet of SUBNETS.join(' ').split(' ')) {
  const [address, prefix] = subnet.split('/');
  if (isIP(address) === 6) notPublic6.addSubnet(address, Number(prefix), 'ipv6');
  else notPublic4.addSubnet(address, Number(prefix), 'ipv4');
}

/** Whether an IP address, as text, is one of the public internet. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 0) return false;
  return family === 6 ? !notPublic6.check(address, 'ipv6') : !notPublic4.check(address, 'ipv4');
}

/** Whether a host that one listens on is reached from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/**
 * Whether a request that was sent to `name` (of a URL: IPv6 in brackets) means a server that is reached from
 * this machine only. A page of another site can have its own name lead here, and would read what is
 * answered; it cannot send another name than its own.
 */
export function createNameCheck(allowed: readonly string[]): (name: string) => boolean {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  return (name) => {
    const bare = name.replace(/^\[|\]$/g, '');
    return isLoopback(bare) || bare.endsWith('.localhost') || names.has(bare);
  };
}

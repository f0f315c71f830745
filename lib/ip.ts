/**
 * IP addresses as text: which family, and whether they lie in a block.
 *
 * `node:net` could say this too, but it takes longer to load than a run with unchanged images has to spare
 * (docs/performance.md). https://www.rfc-editor.org/rfc/rfc4291#section-2.2 and
 * https://www.rfc-editor.org/rfc/rfc4632#section-3.1
 */

/** An IP address. */
export interface Address {
  readonly family: 4 | 6;
  /** 32 or 128 bits. */
  readonly value: bigint;
}

const BITS = { 4: 32, 6: 128 } as const;

/** The address that a text is; undefined for other texts. An IPv6 address may have a zone, which does not count. */
export function parseAddress(text: string): Address | undefined {
  if (!text.includes(":")) {
    const value = parseDotted(text);
    return value === undefined ? undefined : { family: 4, value };
  }
  const value = parseGroups(text.replace(/%[\w.-]+$/, ""));
  return value === undefined ? undefined : { family: 6, value };
}

/** Whether an address lies in a block such as `10.0.0.0/8`. False if the text is no block, or the families differ. */
export function isInBlock({ family, value }: Address, block: string): boolean {
  const [network = "", size = ""] = block.split("/");
  const found = parseAddress(network);
  if (found?.family !== family || !/^\d{1,3}$/.test(size) || Number(size) > BITS[family]) return false;
  const rest = BigInt(BITS[family] - Number(size));
  return value >> rest === found.value >> rest;
}

/** Four decimal numbers without leading zeros. */
function parseDotted(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || parts.some((part) => !/^(?:0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255))
    return undefined;
  return parts.reduce((value, part) => (value << 8n) | BigInt(part), 0n);
}

/** Eight groups of hexadecimal digits. `::` stands for groups of zero, and the last two may be an IPv4 address. */
function parseGroups(text: string): bigint | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half, i) => readGroups(half, i === halves.length - 1));
  if (head === undefined || (halves.length === 2 && tail === undefined)) return undefined;
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...Array<bigint>(missing).fill(0n), ...(tail ?? [])];
  return groups.reduce((value, group) => (value << 16n) | group, 0n);
}

function readGroups(text: string, isLast: boolean): readonly bigint[] | undefined {
  if (text === "") return [];
  const groups: bigint[] = [];
  const parts = text.split(":");
  for (const [i, part] of parts.entries()) {
    const dotted = isLast && i === parts.length - 1 ? parseDotted(part) : undefined;
    if (dotted !== undefined) groups.push(dotted >> 16n, dotted & 0xffffn);
    else if (/^[\da-f]{1,4}$/i.test(part)) groups.push(BigInt(`0x${part}`));
    else return undefined;
  }
  return groups;
}

/**
 * ZIP files whose members are stored as they are, read from memory: what Go's `lib/time/zoneinfo.zip` is.
 *
 * No compression, encryption, ZIP64 or comments in any encoding but UTF-8: this is for an asset of ours, no input.
 *
 * https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (4.3)
 */

export interface ZipMember {
  /** With `/` between parts. */
  readonly name: string;
  readonly content: Uint8Array;
}

const END = 0x06054b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;

/**
 * The members in the order of the central directory; their contents are views of `bytes`.
 *
 * @throws {RangeError} If it is no such file.
 */
export function readStoredZip(bytes: Uint8Array): readonly ZipMember[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const expect = (at: number, signature: number): void => {
    const inside = at >= 0 && at <= bytes.byteLength - 4;
    if (inside && view.getUint32(at, true) === signature) return;
    throw new RangeError(`no ZIP record ${signature.toString(16)} at ${at}`);
  };
  let end = bytes.byteLength - 22;
  // A comment may follow the record.
  while (end > 0 && view.getUint32(end, true) !== END) end--;
  expect(end, END);
  const members: ZipMember[] = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    expect(at, CENTRAL);
    const nameLength = view.getUint16(at + 28, true);
    const name = decoder.decode(bytes.subarray(at + 46, at + 46 + nameLength));
    if (view.getUint16(at + 10, true) !== 0) throw new RangeError(`ZIP member "${name}" is compressed`);
    const size = view.getUint32(at + 24, true);
    const local = view.getUint32(at + 42, true);
    expect(local, LOCAL);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const content = bytes.subarray(start, start + size);
    if (content.byteLength !== size || Bun.hash.crc32(content) !== view.getUint32(at + 16, true)) {
      throw new RangeError(`ZIP member "${name}" is damaged`);
    }
    members.push({ name, content });
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return members;
}

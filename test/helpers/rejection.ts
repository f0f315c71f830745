/** Work that must fail. */

/**
 * What `work` was rejected with.
 *
 * @throws {Error} If it was not: a test must not pass because nothing happened.
 */
export async function rejectionOf(work: Promise<unknown>): Promise<unknown> {
  const [result] = await Promise.allSettled([work]);
  if (result.status === "rejected") return result.reason;
  throw new Error("it did not fail as it should");
}

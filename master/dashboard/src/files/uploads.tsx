// The uploads to one agent with their progress.
import { bytes } from "../ui/format";
import { Button, Bar } from "../ui/kit";
import { forget, pause, resume, uploads, type Upload } from "./queue";

const WORDS: Record<Upload["state"], string> = {
  waiting: "waiting",
  hashing: "reading",
  sending: "uploading",
  paused: "paused",
  failed: "failed",
  done: "done",
};

export function Uploads({ agent }: { agent: string }) {
  const mine = uploads.value.filter((upload) => upload.agent === agent);
  if (mine.length === 0) return null;
  return (
    <ul class="uploads" aria-label="Uploads">
      {mine.map((upload) => (
        <li key={upload.id} data-state={upload.state}>
          <span class="name">{upload.path}</span>
          <Bar percent={upload.file.size ? (upload.done / upload.file.size) * 100 : 100} label={`Upload of ${upload.path}`} />
          <span class="num">
            {WORDS[upload.state]} {bytes(upload.done)} of {bytes(upload.file.size)}
          </span>
          {upload.state === "sending" && (
            <Button small onClick={() => pause(upload.id)}>
              Pause
            </Button>
          )}
          {(upload.state === "paused" || upload.state === "failed") && (
            <Button small onClick={() => resume(upload.id)}>
              Resume
            </Button>
          )}
          <Button small kind="plain" aria-label={`Forget the upload of ${upload.path}`} onClick={() => forget(upload.id)}>
            ×
          </Button>
          {upload.problem && <p class="wrong">{upload.problem}</p>}
        </li>
      ))}
    </ul>
  );
}

"""The push job: python -m studio.engine.push RUN/push. The adapter, merged model or GGUF file goes to the Hub in one commit.

Everything that can be refused is refused before a repository is made; the token is used and never written.
"""

import sys

from huggingface_hub import CommitOperationAdd, HfApi

from studio import events, jobs, licences, lineage, parcel, seal
from studio.engine import adapter, hub
from studio.engine.worker import Desk, about, work
from studio.runs import Run
from studio.share import FILE, PushRequest


def push(desk: Desk) -> events.Event | None:
    """The whole job. Returns Stopped if it was asked to end before the commit."""
    run, asked = Run(desk.folder.parent), PushRequest.from_file(desk.folder / FILE)
    desk.enter("checking")
    _refuse_what_is_not_the_run_s(run, asked, desk)
    api = HfApi(token=hub.token(desk))
    repo = hub.full_name(api, asked.repo)
    with about(repo):
        found = hub.existing(api, repo, "model")
        hub.refuse_to_disturb(found, asked)
        licence = hub.licence(api, lineage.hub_base(run)) or None
        contents = parcel.contents(run, asked.what, repo, licence)
        additions = [CommitOperationAdd(name, content) for name, content in contents.items()]
        if desk.asked_to_stop:
            return events.Stopped(step=0)
        desk.enter("uploading")
        api.create_repo(repo, private=asked.private, exist_ok=True)
        if not hub.send_ahead(desk, api, repo, "model", additions):
            return events.Stopped(step=0)
        # An adapter that stays beside a merged model misleads every loader.
        with desk.stopping.undisturbed():  # a commit that was begun is one: nobody can tell otherwise whether it was made
            made = api.create_commit(repo, additions + hub.deletions(found, additions, parcel.FILES),
                                     commit_message=f"Upload the {asked.what} of {run.name} with ORPO Studio")
            terms = licences.of(licence or licences.recorded(events.read(jobs.of(run).log)))
            if terms and not terms.fits(repo):
                desk.say(events.Noted(f"{terms.of_name()} {repo} does not: rename it on the Hub before you make it public."))
            lineage.note_pushed(run, asked.what, repo, asked.private)
            desk.say(events.Pushed(repo, made.commit_url))
    return None


def _refuse_what_is_not_the_run_s(run: Run, asked: PushRequest, desk: Desk) -> None:
    """Raises StudioError if the result does not exist yet or is not what the run has made."""
    folder = parcel.folder(run, asked.what)
    if asked.what == "adapter":
        adapter.check(run, desk.token, fetch=False)
    parcel.paths(run, asked.what)  # what may not be handed on is refused before the Hub is asked
    if asked.what != "gguf":  # which holds the template inside, from the merged model that was checked
        seal.check(run, folder)
    adapter.refuse_what_is_not_finite(folder)


if __name__ == "__main__":
    sys.exit(work(push))

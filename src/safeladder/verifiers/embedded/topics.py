"""Topics of a request, as hand-made word lists: what harm it may ask for, and which harmless sense its words may have.

An entry is a token or two tokens in a row ("_" between them, "0" any number). A list only says which words count as
one; whether they speak for a harmful request is learned. A word may stand in several lists.
"""

from __future__ import annotations

from collections.abc import Mapping

_ENTRIES: Mapping[str, str] = {
    "violence": "kill kills killing killed murder murders murdering assassinate assassination shoot shooting stab"
    " stabbing strangle strangling choke beat beating punch attack attacks attacking assault assaulting torture"
    " torturing maim injure execute slaughter massacre poison poisoning poisoned kidnap kidnapping abduct abduction"
    " hostage violence violent bloodshed behead lynch genocide",
    "weapons": "gun guns firearm firearms rifle pistol shotgun ammunition bullet bullets bomb bombs bombing"
    " explosive explosives explosion detonate detonator grenade molotov tnt nitroglycerin gunpowder knife knives"
    " blade weapon weapons weaponry missile landmine ammo silencer",
    "mass harm": "terrorist terrorists terrorism terror extremist extremism isis jihad nerve sarin ricin anthrax"
    " toxin toxins radioactive nuclear uranium bioweapon biological chemical pathogen virus_that dirty_bomb outbreak"
    " contaminate",
    "drugs": "drug drugs cocaine heroin meth methamphetamine amphetamine lsd mdma ecstasy marijuana cannabis weed"
    " opioid opioids fentanyl narcotic narcotics dealer dealers dealing overdose ketamine crack cartel smuggle"
    " smuggling traffick trafficking trafficker",
    "fraud": "fraud fraudulent scam scams scamming scammer phishing counterfeit counterfeiting forge forged"
    " forgery launder laundering embezzle embezzling bribe bribery bribes ponzi pyramid evade evasion tax_evasion"
    " insider insider_trading identity_theft blackmail blackmailing extort extortion ransom swindle deceive"
    " deceiving con_artist impersonate impersonating plagiarize cheat cheating fake_id fake_passport",
    "theft": "steal stealing steals stole stolen theft thief thieves rob robbing robbery robbed burglar burglary"
    " burgle shoplift shoplifting carjack hotwire hijack hijacking loot looting pickpocket break_into breaking_into"
    " lockpick pirate pirated piracy copyrighted",
    "cyber": "hack hacks hacking hacked hacker hackers malware ransomware virus spyware keylogger trojan worm"
    " exploit exploits exploiting backdoor ddos botnet phish password passwords crack_the bypass bypassing"
    " unauthorized_access vulnerability vulnerabilities payload sql_injection brute_force credentials jailbreak"
    " darknet dark_web spoof spoofing",
    "privacy": "ssn social_security home_address address_of phone_number personal_information personal_data"
    " private_information credit_card doxx doxing stalk stalking stalker spy spying surveillance eavesdrop wiretap"
    " track_someone leak leaked medical_records",
    "sexual": "sex sexual sexually porn pornography pornographic nude naked explicit erotic erotica rape raping"
    " raped rapist molest molestation pedophile pedophilia child_pornography grooming incest orgasm prostitute"
    " prostitution escort escorts fetish genitals seduce arousal lust",
    "self-harm": "suicide suicidal kill_myself killing_myself self_harm cut_myself cutting_myself hang_myself"
    " anorexia anorexic bulimia starve starving noose wrists hurt_myself",
    "hate": "racist racism sexist sexism homophobic transphobic antisemitic nazi nazis hitler supremacy"
    " supremacist slur slurs bigot bigotry xenophobic hatred inferior subhuman vermin master_race segregation"
    " ethnic_cleansing misogyny misogynist derogatory hateful",
    "groups": "women woman men gay gays lesbian trans transgender muslim muslims islam jews jewish christian"
    " christians black blacks white whites asian asians mexican mexicans immigrants immigrant refugees disabled"
    " minority minorities race races racial ethnic ethnicity religion religious gender autistic african indian"
    " indians chinese arab arabs",
    "misinformation": "misinformation disinformation conspiracy conspiracies hoax fake_news propaganda"
    " false_information spread_lies rumors rumor rigged flat_earth anti_vaccine manipulate manipulating manipulation"
    " manipulative brainwash brainwashing defame defamation defamatory slander",
    "persecution": "bully bullying bullied harass harassing harassment humiliate humiliating insult insults"
    " insulting mock mocking ridicule threaten threatening threat threats intimidate intimidating coerce coercion"
    " discriminate exploit_people abuse abusing abusive enslave slavery",
    "people": "someone somebody person people man woman child children kid kids girl girls boy boys teenager"
    " teenagers wife husband girlfriend boyfriend partner mother father neighbor neighbour coworker colleague boss"
    " friend student students teacher victim victims human humans citizen politician president celebrity police"
    " officer officers",
    "me": "me my myself i",
    "children": "child children kid kids minor minors underage teen teens teenager teenagers girl girls boy boys"
    " baby school",
    "evasion": "without_getting without_being getting_caught get_caught get_away getting_away undetected"
    " untraceable cover_up hide_the hide_a dispose_of avoid_detection evidence police law_enforcement authorities"
    " detection",
    "computing": "python linux windows process processes program code function command server computer software"
    " app script file files thread terminal database variable loop api browser perl java javascript unix docker"
    " kernel task_manager debug method class",
    "games and fiction": "game games player players playing fortnite minecraft call_of character characters novel"
    " movie film tv series fictional story comic book anime level boss_fight gta sims pokemon video_game quest chess"
    " season episode mario zelda harry potter superman batman",
    "food and home": "cocktail cocktails recipe cake cook cooking bake oven butter flour sugar egg eggs meat beef"
    " chicken fish onion garlic boil kitchen salad sauce dish drink coffee tea pan knife_sharpener garden plant"
    " plants weeds clean cleaning wash laundry",
    "nature": "mosquito mosquitoes bug bugs insect insects pest pests rat rats mice mouse ants cockroach spider"
    " bear fly animal animals dog dogs cat cats bird birds fish deer pig cow hunting fishing bacteria germs tree"
    " trees cancer",
    "history and law": "history historical century war wars battle ancient empire king emperor in_0 when_did"
    " who_was year_0 president_0 revolution massacre_of assassinated world_war treaty holocaust trial sentenced"
    " statute",
    "definition": "what_is what_are what_does define definition meaning means refers_to term concept why_is"
    " why_did why_do difference_between explain what's who_is",
    "request for means": "how_can how_do how_to ways_to steps_to instructions guide tutorial best_way easiest_way"
    " teach_me show_me give_me tell_me write_a create_a make_a develop_a help_me",
    "work": "work job office meeting presentation performance exam interview career business company team project"
    " customer training sport match race stage audience comedy joke song dance workout gym",
    "self-protection": "protect yourself protect_yourself yourself_from stay_safe security_measures two_factor"
    " antivirus be_cautious be_aware warning_signs prevent prevention prevents preventing safeguard awareness defend"
    " defense",
    "treatment": "treatment therapy medication doctor diagnosis symptoms recovery healing counseling mental_health"
    " healthcare support_group",
    "lawful way": "permission consent with_permission licensed license legal_way legally authorized official"
    " certified follow_the comply_with complies regulations laws",
    "warning": "warning caution please_note it's_important keep_in remember_that be_careful important_note"
    " disclaimer responsibly at_your safety safe safely",
}

TOPICS: tuple[str, ...] = tuple(_ENTRIES)

_TOPICS_OF: dict[str, list[int]] = {}
for _number, _words in enumerate(_ENTRIES.values()):
    for _entry in _words.split():
        _TOPICS_OF.setdefault(_entry.replace("_", " "), []).append(_number)


def topics_of(grams: set[str]) -> dict[int, int]:
    """Number of a topic -> how many of the tokens and pairs of tokens belong to it, at most 3."""
    found: dict[int, int] = {}
    for gram in grams & _TOPICS_OF.keys():
        for topic in _TOPICS_OF[gram]:
            found[topic] = min(found.get(topic, 0) + 1, 3)
    return found
